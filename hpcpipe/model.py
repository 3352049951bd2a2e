"""The frozen values that pass between the parts: resources, dependencies, states.

This module knows what things are called and how a person spells them; it does not know how any
scheduler does.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Literal, NamedTuple

from hpcpipe.amounts import format_memory as format_memory
from hpcpipe.amounts import format_time as format_time
from hpcpipe.amounts import parse_memory as parse_memory
from hpcpipe.amounts import parse_time as parse_time
from hpcpipe.errors import ConfigError

_BOUND = r"(?:[<>]=?|==)[\w.+-]+"  # of a version
_SUMS = ("memory", "gpus", "scratch")  # that tasks side by side take together


class Resources(NamedTuple):
    """What one task asks for: memory in MiB, time in seconds; ``None`` leaves it to the site.

    Resources never enter a task's key: asking for more must not run good tasks again.
    """

    cpus: int | None = None
    memory: int | None = None
    time: int | None = None
    gpus: int | None = None
    queue: str | None = None
    account: str | None = None
    pack: int | None = None  # tasks that share an element
    scratch: int | None = None  # node-local disk, in MiB
    throttle: int | None = None  # elements of one array that run at a time
    requires: tuple[str, ...] | None = None  # words that the queue must offer
    software: tuple[str, ...] | None = None  # demands of the catalogue: "fsl>=6"
    prefer: str | None = None  # among queues: "soonest" or "cheapest"

    @classmethod
    def parse(
        cls,
        *,
        cpus: int | None = None,
        memory: str | int | None = None,
        time: str | int | None = None,
        gpus: int | None = None,
        queue: str | None = None,
        account: str | None = None,
        pack: int | None = None,
        scratch: str | int | None = None,
        throttle: int | None = None,
        requires: str | Iterable[str] | None = None,
        software: str | Iterable[str] | None = None,
        prefer: str | None = None,
    ) -> Resources:
        """Read resources as users write them; raises ConfigError naming the bad one."""
        counts = (
            ("cpus", cpus, 1),
            ("gpus", gpus, 0),
            ("pack", pack, 1),
            ("throttle", throttle, 1),
        )
        for name, count, least in counts:
            if count is not None and (type(count) is not int or count < least):
                raise ConfigError(f"{name}={count!r}: give a whole number, at least {least}")
        for name, word in (("queue", queue), ("account", account)):
            if word is not None and not re.fullmatch(r"[\w.@:+-]+", word):
                raise ConfigError(
                    f"{name}={word!r}: not a name; use letters, digits and _ . @ : + - only"
                )
        return cls(
            cpus=cpus,
            memory=None if memory is None else parse_memory(memory),
            time=None if time is None else parse_time(time),
            gpus=gpus,
            queue=queue,
            account=account,
            pack=pack,
            scratch=None if scratch is None else parse_memory(scratch),
            throttle=throttle,
            requires=_words("requires", requires, r"[\w.@:+-]+"),
            software=_words("software", software, rf"[\w.@:+-]+(?:{_BOUND}(?:,{_BOUND})*)?"),
            prefer=_preference(prefer),
        )

    def over(self, below: Resources) -> Resources:
        """Lay these over ``below``: what is not said here is taken from there."""
        said = {name: value for name, value in self._asdict().items() if value is not None}
        return below._replace(**said)

    def at_least(self, other: Resources) -> Resources:
        """Raise memory and time to those of ``other``, where it has more."""
        memory = max(self.memory or 0, other.memory or 0) or None
        return self._replace(memory=memory, time=max(self.time or 0, other.time or 0) or None)

    def times(self, lanes: int, turns: int) -> Resources:
        """Say what tasks take together: so many side by side, and so many in turn."""
        if lanes > 1:
            sums = {name: n * lanes for name in _SUMS if (n := getattr(self, name))}
            self = self._replace(**sums, cpus=(self.cpus or 1) * lanes)
        return self._replace(time=self.time * turns) if self.time else self

    def share(self, lanes: int, turns: int) -> Resources:
        """Say what one of so many tasks side by side, and so many in turn, has of these."""
        parts = {name: n // lanes for name in (*_SUMS, "cpus") if (n := getattr(self, name))}
        return self._replace(**parts, time=self.time // turns if self.time else None)

    def __str__(self) -> str:
        """Say it in one phrase: ``1 cpu, 4 GB, 2 h``."""
        words = [f"{self.cpus or 1} cpu" + "s" * ((self.cpus or 1) > 1)]
        if self.memory:
            words.append(format_memory(self.memory))
        if self.time:
            words.append(format_time(self.time))
        if self.gpus:
            words.append(f"{self.gpus} gpu" + "s" * (self.gpus > 1))
        if self.scratch:
            words.append(f"{format_memory(self.scratch)} of scratch")
        return ", ".join((*words, *(self.requires or ()), *(self.software or ())))


def _words(what: str, said: str | Iterable[str] | None, spelling: str) -> tuple[str, ...] | None:
    """Read words as a list or, split at blanks, as one text."""
    if said is None:
        return None
    words = tuple(map(str, said.split() if isinstance(said, str) else said))
    for word in words:
        if not re.fullmatch(spelling, word):
            meant = "fsl or fsl>=6" if what == "software" else "avx512 or rhel9"
            raise ConfigError(f"{what}={word!r}: write for example {meant}")
    return words


def _preference(word: str | None) -> str | None:
    if word not in (None, "soonest", "cheapest"):
        raise ConfigError(f"prefer={word!r}: write 'soonest' or 'cheapest'")
    return word


class State(StrEnum):
    """What we conclude of a task. Never stored: derived anew from what was submitted, what the
    scheduler says and what lies on disk."""

    WAITING = "waiting"  # not submitted, or its upstreams have not ended
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"  # an upstream failed, so it can never run
    LOST = "lost"  # the scheduler has forgotten it and nothing lies on disk
    UNKNOWN = "unknown"  # the scheduler could not be asked, or said a word we do not know

    @property
    def live(self) -> bool:
        """Tell whether the task may still end well without being submitted again."""
        return self in (State.WAITING, State.QUEUED, State.HELD, State.RUNNING, State.UNKNOWN)

    @property
    def bad(self) -> bool:
        """Tell whether the task ended, or can only end, without a good outcome."""
        return self in (State.FAILED, State.CANCELLED, State.BLOCKED, State.LOST)


class Reason(StrEnum):
    """Why a task is not good; ``ERROR`` and ``EXIT`` are the task's own doing."""

    ERROR = "error"
    EXIT = "exit"
    SIGNAL = "signal"
    MEMORY = "out of memory"
    TIME = "time limit"
    NODE = "node failure"
    START = "could not be started"
    CANCELLED = "cancelled"
    REFUSED = "refused by the scheduler"
    UPSTREAM = "upstream failed"
    LOST = "lost"
    UNREACHABLE = "scheduler could not be asked"


class JobStatus(NamedTuple):
    """What the queue says of one job or element, with the scheduler's own word and reason.

    ``State.BLOCKED`` is of what is queued and can never start, since what it waits for went wrong;
    ``State.FAILED`` of what can never start by itself, for this reason, and stays there unless it
    is cancelled.
    """

    state: State
    native: str
    why: str = ""
    reason: Reason = Reason.START


class JobEnd(NamedTuple):
    """What the accounting says of one job or element that has ended.

    ``exit_code`` and ``signal`` are None where the scheduler does not know; ``max_memory`` is in
    MiB; ``wall`` in seconds; ``reason`` None means that it ended well.
    """

    native: str
    reason: Reason | None
    exit_code: int | None = None
    signal: int | None = None
    max_memory: int | None = None
    wall: float | None = None
    host: str = ""


class After(NamedTuple):
    """One dependency on an accepted job: start after it ended well.

    ``each`` pairs elements: element *i* starts after element *i* of ``job``. ``all`` waits for
    the whole of ``job``, or for its one element ``element``. Where not ``well``, any end will do:
    the job waits for more than its elements need, and one of them that can run should.
    """

    job: str
    kind: Literal["each", "all"] = "all"
    element: int | None = None
    well: bool = True


class Capabilities(NamedTuple):
    """What a scheduler's arrays and dependencies can do; all that the planner knows of it."""

    arrays: bool = True
    elementwise: bool = True  # After("each")
    element_dependency: bool = True  # After("all", element=i)
    subset: bool = True  # After("each") by an array of fewer elements
    sparse: bool = True  # arrays over any set of indices, not only first..last
    array_of_one: bool = True  # arrays may have a single element
    success: bool = True  # what is after a failure never starts; else only its own gate ends it
    hold: bool = True  # submit held, release later
    first_index: int = 0
    window: int | None = None  # elements of an After("each") array that are looked at at a time
    no_path: str = r"(?!)"  # what the run folder's path must not hold, as a regular expression


def ranges(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Fold ascending integers into inclusive runs: 0 1 2 5 → (0, 2) (5, 5)."""
    start = last = None
    for index in indices:
        if last is not None and index == last + 1:
            last = index
            continue
        if start is not None and last is not None:
            yield start, last
        start = last = index
    if start is not None and last is not None:
        yield start, last


def parse_indices(text: str) -> Sequence[int]:
    """Read ``0-999`` or ``1,5,7-9``; a hundred thousand of them must not be as many objects.

    Raises ValueError where the text is anything else, or names an index twice.
    """
    runs = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{part!r} is neither an index nor first-last")
        runs.append(range(int(first), int(last or first) + 1))
        if not runs[-1]:
            raise ValueError(f"{part!r} holds no index")
    runs.sort(key=lambda run: run.start)
    if any(after.start < run.stop for run, after in pairwise(runs)):
        raise ValueError("an index is named twice")
    if runs[-1].stop - runs[0].start == sum(map(len, runs)):
        return range(runs[0].start, runs[-1].stop)
    return array("q", (index for run in runs for index in run))
