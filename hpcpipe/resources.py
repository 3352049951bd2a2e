"""The resources of a task: cpus, memory, time and the rest, and how people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from hpcpipe.errors import ConfigError
from hpcpipe.quantities import format_memory, format_time, parse_memory, parse_time

_BOUND = r"(?:[<>]=?|==)[\w.+-]+"  # on a version

_GROWTH = re.compile(r"x(\d+(?:\.\d+)?)|no")
_SIGNALS = ("USR1", "USR2", "TERM", "HUP")  # for a checkpoint
_AHEAD = 65535  # seconds before the limit, at most, by what Slurm takes
_SUMS = ("memory", "gpus", "scratch")  # that add up over tasks that run side by side


class Resources(NamedTuple):
    """What one task requests: memory in MiB, time in seconds; ``None`` leaves it to the site.

    Resources never enter a task's key: requesting more must not rerun tasks that succeeded.
    """

    cpus: int | None = None
    memory: int | None = None
    time: int | None = None
    gpus: int | None = None
    queue: str | None = None
    account: str | None = None
    pack: int | None = None  # tasks that share an element
    scratch: int | None = None  # node-local disk, in MiB
    throttle: int | None = None  # elements of one array that may run at once
    requires: tuple[str, ...] | None = None  # features that the queue must offer
    software: tuple[str, ...] | None = None  # from the site's catalogue: "fsl>=6"
    prefer: str | None = None  # among queues: "soonest" or "cheapest"
    retries: int | None = None  # by a job in the queue, with nobody logged in; None: no such job
    retry_if: tuple[str, ...] | None = None  # exit codes, or patterns of what it last said
    on_memory: str | None = None  # out of memory: "x2" as much, or "no" retry; None: as measured
    on_time: str | None = None  # the same at the time limit
    checkpoint: str | None = None  # a signal, and how many seconds ahead of the limit: "USR1@300"

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
        retries: int | None = None,
        retry_if: str | int | Iterable[str | int] | None = None,
        on_memory: str | None = None,
        on_time: str | None = None,
        checkpoint: str | None = None,
    ) -> Resources:
        """Parse resources as users write them; raise ConfigError naming the one that is wrong."""
        counts = (
            ("cpus", cpus, 1),
            ("gpus", gpus, 0),
            ("pack", pack, 1),
            ("throttle", throttle, 1),
            ("retries", retries, 0),
        )
        for name, count, least in counts:
            if count is not None and (type(count) is not int or count < least):
                raise ConfigError(f"{name}={count!r}: must be a whole number, at least {least}")
        # An empty account is none at all, not even the site's default one.
        for name, word in (("queue", queue), ("account", account or None)):
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
            retries=retries,
            retry_if=_conditions(retry_if),
            on_memory=_growth("on_memory", on_memory),
            on_time=_growth("on_time", on_time),
            checkpoint=_checkpoint(checkpoint),
        )

    @property
    def attempts(self) -> int | None:
        """How often a task that fails is submitted again by itself; None: never."""
        return 0 if self.retries is None and self.checkpoint else self.retries

    def over(self, below: Resources) -> Resources:
        """Return these resources, with unset ones taken from ``below``."""
        said = {name: value for name, value in self._asdict().items() if value is not None}
        return below._replace(**said)

    def at_least(self, other: Resources) -> Resources:
        """Return these resources with memory and time raised to at least those of ``other``."""
        memory = max(self.memory or 0, other.memory or 0) or None
        return self._replace(memory=memory, time=max(self.time or 0, other.time or 0) or None)

    def times(self, lanes: int, turns: int) -> Resources:
        """Return what ``lanes`` tasks side by side, ``turns`` one after another, take together."""
        if lanes > 1:
            sums = {name: n * lanes for name in _SUMS if (n := getattr(self, name))}
            self = self._replace(**sums, cpus=(self.cpus or 1) * lanes)
        return self._replace(time=self.time * turns) if self.time else self

    def share(self, lanes: int, turns: int) -> Resources:
        """Return one task's share when ``lanes`` run side by side, ``turns`` one after another."""
        parts = {name: n // lanes for name in (*_SUMS, "cpus") if (n := getattr(self, name))}
        return self._replace(**parts, time=self.time // turns if self.time else None)

    def __str__(self) -> str:
        """Format as one phrase: ``1 cpu, 4 GB, 2 h``."""
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
    """Parse words given as a list, or as one text to be split at blanks."""
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


def _growth(what: str, word: str | None) -> str | None:
    if word is not None and not ((match := _GROWTH.fullmatch(word)) and float(match[1] or 2) > 1):
        raise ConfigError(f"{what}={word!r}: write 'x2' for twice as much, or 'no' for no retry")
    return word


def _checkpoint(said: str | None) -> str | None:
    """Parse a signal and when it is sent: ``USR1@5m`` becomes ``USR1@300``."""
    if said is None:
        return None
    name, at, ahead = said.partition("@")
    name = name.upper().removeprefix("SIG")
    if name not in _SIGNALS or not at or not 1 <= (seconds := parse_time(ahead)) <= _AHEAD:
        raise ConfigError(
            f"checkpoint={said!r}: write a signal ({', '.join(_SIGNALS)}) and how long before the "
            "time limit it is sent: USR1@5m"
        )
    return f"{name}@{seconds}"


def _conditions(said: str | int | Iterable[str | int] | None) -> tuple[str, ...] | None:
    """Parse when to retry: exit codes, and patterns of the last words in a task's log."""
    if said is None:
        return None
    words = tuple(map(str, (said,) if isinstance(said, (str, int)) else said))
    for word in words:
        try:
            re.compile(word)
        except re.error as error:
            raise ConfigError(f"retry_if={word!r}: not a regular expression: {error}") from error
    return words
