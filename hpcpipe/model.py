"""The frozen values that pass between the parts: resources, dependencies, states.

This module knows what things are called and how they are spelled by a person (``"2G"``,
``"30m"``); it does not know how any scheduler spells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Literal, NamedTuple

from hpcpipe.errors import ConfigError

# Compiled when they are used: every `hpcpipe status` comes past here, and uses none of them.
_MEMORY = r"(?i)(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?"
_TIME_WORDS = r"(?i)(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?\s*(?:(\d+)\s*s)?"
_TIME_CLOCK = r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?"
_MIB = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024 * 1024}


def parse_memory(text: str | int) -> int:
    """Read an amount of memory (``"2G"``, ``"500M"``, a bare number of MiB) as MiB.

    Raises ConfigError where the text is no amount, or is zero.
    """
    match = re.fullmatch(_MEMORY, str(text).strip())
    mib = round(float(match[1]) * _MIB[match[2].upper()]) if match else 0
    if mib < 1:
        raise ConfigError(f"memory {text!r} is not an amount; write for example 500M, 2G or 1.5G")
    return mib


def parse_time(text: str | int) -> int:
    """Read a length of time as seconds.

    Takes ``"90s"``, ``"30m"``, ``"2h30m"``, ``"1d"``, ``"2:30:00"``, ``"2-00:00:00"``, ``"10:00"``
    (minutes and seconds, as Slurm reads it) and a bare ``int`` of seconds. A bare number in a
    string is refused, since schedulers disagree whether it means minutes or seconds.
    """
    if isinstance(text, int) and text > 0:
        return text
    words = str(text).strip()
    if clock := re.fullmatch(_TIME_CLOCK, words):
        days, first, second, third = clock.groups()
        if third is None and days is None:
            seconds = int(first) * 60 + int(second)
        else:
            seconds = int(first) * 3600 + int(second) * 60 + int(third or 0)
        seconds += int(days or 0) * 86400
    else:
        named = re.fullmatch(_TIME_WORDS, words)
        d, h, m, s = (int(part or 0) for part in named.groups()) if named else (0, 0, 0, 0)
        seconds = d * 86400 + h * 3600 + m * 60 + s
    if seconds < 1:
        raise ConfigError(f"time {text!r} is not a length of time; write for example 30m or 2h30m")
    return seconds


def format_memory(mib: int) -> str:
    """Write MiB as a person would: ``4 GB``, ``1.5 GB``, ``300 MB``."""
    if mib < 1024:
        return f"{mib} MB"
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GB"


def format_time(seconds: float) -> str:
    """Write seconds as a person would: ``4 s``, ``12 min``, ``1 h 20 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or whole == seconds else f"{seconds:.1f} s"
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min")]
    if whole < 600:
        parts.append((whole % 60, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


@dataclass(frozen=True)
class Resources:
    """What one task asks for: memory in MiB, time in seconds; ``None`` leaves it to the site.

    Resources never enter a task's key: asking for more must not run good tasks again.
    """

    cpus: int | None = None
    memory: int | None = None
    time: int | None = None
    gpus: int | None = None
    queue: str | None = None
    account: str | None = None
    pack: int | None = None  # tasks that one element runs, one after another

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
    ) -> Resources:
        """Read resources as users write them; raises ConfigError naming the bad one."""
        for name, count, least in (("cpus", cpus, 1), ("gpus", gpus, 0), ("pack", pack, 1)):
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
        )

    def over(self, below: Resources) -> Resources:
        """Lay these over ``below``: what is not said here is taken from there."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(below, **{name: value for name, value in said.items() if value is not None})

    def at_least(self, other: Resources) -> Resources:
        """Raise memory and time to those of ``other``, where it has more."""
        memory = max(self.memory or 0, other.memory or 0) or None
        return replace(self, memory=memory, time=max(self.time or 0, other.time or 0) or None)

    def __str__(self) -> str:
        """Say it in one phrase: ``1 cpu, 4 GB, 2 h``."""
        words = [f"{self.cpus or 1} cpu" + "s" * ((self.cpus or 1) > 1)]
        if self.memory:
            words.append(format_memory(self.memory))
        if self.time:
            words.append(format_time(self.time))
        if self.gpus:
            words.append(f"{self.gpus} gpu" + "s" * (self.gpus > 1))
        return ", ".join(words)


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

    FAILED says that it can never start, and stays there unless it is cancelled.
    """

    state: State
    native: str
    why: str = ""


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


@dataclass(frozen=True)
class After:
    """One dependency on an accepted job: start after it ended well.

    ``each`` pairs elements: element *i* starts after element *i* of ``job``. ``all`` waits for
    the whole of ``job``, or for its one element ``element``.
    """

    job: str
    kind: Literal["each", "all"] = "all"
    element: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a scheduler's arrays and dependencies can do; all that the planner knows of it."""

    arrays: bool = True
    elementwise: bool = True  # After("each")
    element_dependency: bool = True  # After("all", element=i)
    subset: bool = True  # After("each") by an array of fewer elements
    sparse: bool = True  # arrays over any set of indices, not only first..last
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
