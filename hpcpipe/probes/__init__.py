"""``hpcpipe site init`` and ``site doctor``: what an adapter's probe finds, written or judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcpipe.errors import ConfigError, SchedulerUnavailable
from hpcpipe.schedulers import REGISTRY, find_adapter, outside
from hpcpipe.schedulers.base import UNREADABLE, Done, Run
from hpcpipe.schedulers.probe import Found, Probe
from hpcpipe.site.file import Machine, scheduler_here
from hpcpipe.site.load import load_site


def make_probe(name: str) -> Probe:
    """Make the probe of a scheduler; raises ConfigError if it has no probe."""
    probe = find_adapter(name).probe
    if probe is None:
        known = [one for one in (*REGISTRY, *outside()) if find_adapter(one).probe]
        raise ConfigError(f"a live {name} cannot be looked at yet; known: {', '.join(known)}")
    return probe()


def look(probe: Probe, run: Run) -> Found:
    """Return what a probe finds; raises SchedulerUnavailable where an answer cannot be read."""
    latest = ""

    def noting(words: Sequence[str], folder: Path | None) -> Done:
        nonlocal latest
        latest = " ".join(words)
        return run(words, folder)

    try:
        return probe.look(noting)
    except UNREADABLE as error:  # it is cut short, or has somebody else's lines
        raise SchedulerUnavailable(f"could not read the answer of {latest}: {error}") from error


def find_probe(machine: Machine) -> Probe:
    """Find the probe of the scheduler whose command is here; the local one is everywhere.

    It is looked for in the same way as where a site is chosen. Raises ConfigError where it has no
    probe.
    """
    found = scheduler_here(machine)
    if found is None:
        return make_probe("local")
    return make_probe(load_site(str(found[0]), machine=machine).site.written_for)
