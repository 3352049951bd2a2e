"""What a probe of a live cluster finds, and what is said of a site file held against it.

A probe knows one scheduler: which commands tell its limits, and which of its settings matter to
hpcpipe. It asks a handful of commands, changes nothing, and starts no job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from hpcpipe.schedulers.base import Run

Verdict = Literal["ok", "warning", "wrong"]
Which = Callable[[str], str | None]


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: what it is about, how that stands, and what to do about it."""

    about: str
    verdict: Verdict
    said: str
    do: str = ""


@dataclass(frozen=True)
class Found:
    """What a cluster says of itself.

    ``settings`` are a site file's, as it would spell them; ``remarks`` say by dotted key where a
    value is from. ``facts`` are the scheduler's own settings, in its own words; ``accounts`` those
    that this user may charge, ``sources`` the commands that were asked.
    """

    scheduler: str
    version: str
    settings: Mapping[str, Any]
    remarks: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    accounts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class Probe(Protocol):
    """What each scheduler's probe can do."""

    name: ClassVar[str]
    # What a compute node runs to learn whether it may submit; submits nothing. () if it may not.
    from_node: ClassVar[tuple[str, ...]]

    def here(self, which: Which) -> bool:
        """Tell whether this scheduler's commands are on this machine."""
        ...

    def look(self, run: Run) -> Found:
        """Ask the cluster; raises SchedulerUnavailable where it does not answer."""
        ...

    def check(self, found: Found) -> Iterator[Finding]:
        """Judge the scheduler's own settings, as far as they matter to hpcpipe."""
        ...
