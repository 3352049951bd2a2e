"""What an end means: the outcome a task left, or only the scheduler's word, as state and reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcpipe.model import JobEnd, Reason, State, format_memory
from hpcpipe.outcome import CLAIMED, NO_ENVIRONMENT, OVER_MEMORY, UPSTREAM_FAILED
from hpcpipe.record import BatchRecord


def from_outcome(
    outcome: Mapping[str, Any], end: JobEnd | None, batch: BatchRecord
) -> tuple[State, Reason, str]:
    """Conclude from an outcome that went wrong, and the accounting where a signal ended it."""
    words = str(outcome.get("error", "its outcome cannot be read"))
    if outcome.get("signal") is not None:
        if end and end.reason in (Reason.TIME, Reason.MEMORY, Reason.NODE, Reason.CANCELLED):
            return from_end(end, batch)
        asked, used = batch.resources.memory, (outcome.get("max_memory") or 0) / 1024
        if outcome["signal"] == 9 and asked and used > 0.9 * asked:
            return State.FAILED, Reason.MEMORY, _memory_words(used, batch)
        limit, wall = batch.resources.time, outcome.get("wall") or 0
        if outcome.get("terminated") and limit and wall > 0.9 * limit:
            return State.FAILED, Reason.TIME, words
        return State.FAILED, Reason.SIGNAL, words
    if outcome.get("exit") is not None:
        return State.FAILED, Reason.EXIT, words
    if words.startswith("MemoryError") and batch.resources.memory:
        # Some schedulers kill nothing, and let a process have no more memory.
        return State.FAILED, Reason.MEMORY, f"{words}{_limit(batch)}"
    return State.FAILED, Reason.ERROR, words


def from_end(end: JobEnd, batch: BatchRecord) -> tuple[State, Reason, str]:
    """Conclude from the accounting alone: the task left nothing on disk."""
    if end.reason is None:
        return State.LOST, Reason.LOST, f"the scheduler says {end.native}, but no outcome is there"
    if end.exit_code == UPSTREAM_FAILED or end.reason is Reason.UPSTREAM:
        return State.BLOCKED, Reason.UPSTREAM, "an upstream had no good outcome when it started"
    if end.exit_code == NO_ENVIRONMENT:
        return State.FAILED, Reason.EXIT, "Python differs on the node; see its log"
    if end.exit_code == CLAIMED:
        return State.FAILED, Reason.EXIT, "another process had claimed the task; see its log"
    if end.reason is Reason.CANCELLED:
        return State.CANCELLED, Reason.CANCELLED, end.native
    if end.reason is Reason.MEMORY or end.exit_code == OVER_MEMORY:
        return State.FAILED, Reason.MEMORY, _memory_words(end.max_memory or 0, batch)
    if end.reason is Reason.EXIT:
        return State.FAILED, Reason.EXIT, f"exit {end.exit_code}, without an outcome; see its log"
    if end.reason is Reason.LOST:
        return State.LOST, Reason.LOST, end.native
    where = f" on {end.host}" if end.host else ""
    return State.FAILED, end.reason, f"{end.native}{where}"


def _memory_words(used: float, batch: BatchRecord) -> str:
    asked = batch.resources.memory
    of = f" of {format_memory(asked)}" if asked else ""
    return f"used {format_memory(round(used))}{of}" if used else f"killed{_limit(batch)}"


def _limit(batch: BatchRecord) -> str:
    asked = batch.resources.memory
    return f" at its limit of {format_memory(asked)}" if asked else ""
