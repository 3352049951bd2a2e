"""The probes by scheduler, in the order in which schedulers are looked for."""

from __future__ import annotations

from importlib import import_module

from hpcpipe.errors import ConfigError
from hpcpipe.probes.base import Probe, Which

REGISTRY = {"slurm": "SlurmProbe", "local": "LocalProbe"}


def make_probe(name: str) -> Probe:
    """Make the probe of a scheduler; raises ConfigError where there is none."""
    if name not in REGISTRY:
        raise ConfigError(f"a live {name} cannot be looked at yet; known: {', '.join(REGISTRY)}")
    made: Probe = getattr(import_module(f"hpcpipe.probes.{name}"), REGISTRY[name])()
    return made


def find_probe(which: Which) -> Probe:
    """Find the first scheduler whose commands are here; the local one is everywhere."""
    return next(probe for probe in map(make_probe, REGISTRY) if probe.here(which))
