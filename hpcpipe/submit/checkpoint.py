"""Checkpoint signals: which signal a batch gets, and how long before its time limit."""

from __future__ import annotations

import signal
from typing import NamedTuple

from hpcpipe.errors import ConfigError
from hpcpipe.quantities import format_time
from hpcpipe.resources import Resources


class Checkpoint(NamedTuple):
    """A signal, how long before the limit, and after how long the element sends it to itself.

    ``after`` is 0 where the scheduler sends it. All in seconds.
    """

    signal: str
    ahead: int
    after: int

    @property
    def number(self) -> int:
        """The signal's number."""
        return int(signal.Signals[f"SIG{self.signal}"])


def find_checkpoint(asked: Resources, *, warns: bool) -> Checkpoint | None:
    """Return what an element that asks for a checkpoint needs; ``warns``: the scheduler sends it.

    Raises ConfigError where its time limit is unknown, or comes before the signal would.
    """
    if asked.checkpoint is None:
        return None
    name, _, text = asked.checkpoint.partition("@")
    ahead = int(text)
    said = f"checkpoint={name}@{format_time(ahead)}"
    if asked.time is None and not warns:
        raise ConfigError(f"{said}: needs a time limit, time= or --time")
    if asked.time is not None and asked.time <= ahead:
        limit = format_time(asked.time)
        raise ConfigError(f"{said}: the time limit must be longer than that, and is {limit}")
    return Checkpoint(name, ahead, 0 if warns or asked.time is None else asked.time - ahead)
