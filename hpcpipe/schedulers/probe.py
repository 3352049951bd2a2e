"""What a probe finds on a live cluster, and the findings when a site file is compared with it.

A probe knows one scheduler: which commands show its limits, and which of its settings matter to
hpcpipe. It asks a handful of commands, changes nothing, and starts no job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from hpcpipe.errors import SchedulerUnavailable, near
from hpcpipe.schedulers.base import Run

if TYPE_CHECKING:
    from hpcpipe.site import Site

Verdict = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: what it is about, how that stands, and what to do about it."""

    about: str
    verdict: Verdict
    said: str
    do: str = ""


@dataclass(frozen=True)
class Found:
    """The settings and limits that a cluster reports.

    ``settings`` are a site file's, as people write them; ``remarks`` have by dotted key where a
    value is from. ``facts`` are the scheduler's own settings, in its own words; ``accounts`` those
    that this user may charge, ``sources`` the commands that were asked, and ``all_queues`` whether
    they show all that there are. Where ``queue_names`` are not the scheduler's but the file's
    own, there is one queue, which any of the file's is compared with.
    """

    scheduler: str
    version: str
    settings: Mapping[str, Any]
    remarks: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    accounts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    all_queues: bool = True
    queue_names: bool = True


class Probe(Protocol):
    """What each scheduler's probe can do."""

    name: ClassVar[str]
    # What a compute node runs to learn whether it may submit; submits nothing. () if it may not.
    from_node: ClassVar[tuple[str, ...]]

    def look(self, run: Run) -> Found:
        """Ask the cluster; raises SchedulerUnavailable where it does not answer."""
        ...

    def check(self, found: Found, site: Site) -> Iterator[Finding]:
        """Check the scheduler's own settings, as far as they matter to hpcpipe, and what only it
        reads of the site file."""
        ...


def ask(run: Run, *words: str) -> str:
    """Ask one command; raises SchedulerUnavailable, with the scheduler's words, where it fails."""
    done = run(words, None)
    if done.status:
        raise SchedulerUnavailable(f"{done.words}\n({' '.join(words)} could not ask)")
    return done.stdout


def among(about: str, mine: str, known: Collection[str], what: str) -> Finding:
    """Check whether a name in the file is among those that the cluster knows."""
    if mine in known:
        return Finding(about, "ok", mine)
    do = f"set {about}{near(mine, known)}"
    return Finding(about, "wrong", f"{mine!r} is no {what} of the cluster", do)


def unkept(said: str, do: str, site: Site) -> Finding:
    """Check whether jobs keep the memory limit themselves, where the scheduler does not."""
    if site.limits.watch_memory:
        return Finding("memory limit", "ok", f"{said}; each job keeps its own: limits.watch_memory")
    return Finding("memory limit", "warning", said, f"{do}, or set limits.watch_memory = true")


def spelled_time(seconds: int) -> str:
    """Return a time limit as people write it in a site file."""
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    return next(f"{seconds // size}{unit}" for unit, size in sizes if seconds % size == 0)


def spelled_memory(mib: int) -> str:
    """Return a memory limit as people write it in a site file."""
    return f"{mib}M" if mib % 1024 else f"{mib // 1024}G"


def unreserved(queues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the queues; if all have GPUs, they are open to tasks without."""
    if all("min_gpus" in queue for queue in queues):
        return [{key: value for key, value in one.items() if key != "min_gpus"} for one in queues]
    return queues
