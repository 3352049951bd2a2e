"""What an end means: the outcome a task left, or only the scheduler's word, as state and reason."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.quantities import format_memory
from hpcpipe.store.record import BatchRecord
from hpcpipe.worker.outcome import (
    CANCELLED,
    CLAIMED,
    NO_ENVIRONMENT,
    NO_LOG,
    NO_SPACE,
    NOT_STARTED,
    OVER_MEMORY,
    UNTRUSTED,
    UPSTREAM_FAILED,
)

_CODES = {  # of a worker that left no outcome, or in a pack one with the reason why it did not run
    CANCELLED: (State.CANCELLED, Reason.CANCELLED, "cancelled before it began"),
    UPSTREAM_FAILED: (
        State.BLOCKED,
        Reason.UPSTREAM,
        "an upstream had no good outcome when it started",
    ),
    CLAIMED: (State.FAILED, Reason.EXIT, "another process had claimed the task; see its log"),
    NOT_STARTED: (State.FAILED, Reason.START, "its setup failed"),
    NO_LOG: (
        State.FAILED,
        Reason.START,
        "its log could not be written: see .hpcpipe/logs of the run",
    ),
    NO_ENVIRONMENT: (State.FAILED, Reason.START, "its Python is not on the node; see its log"),
    UNTRUSTED: (
        State.FAILED,
        Reason.EXIT,
        "the files of the run were changed, or another user could have changed them; see its log",
    ),
    NO_SPACE: (State.FAILED, Reason.SPACE, "its outcome could not be written to the run's folder"),
}


# Signals at the limit of memory, and how much of it was then used at least: the kernel kills while
# the peak was not yet measured, and a TERM is sent for other causes too.
_KILLS = {9: 0.9, 15: 1.0}
_SENT = (  # what a scheduler sends a signal for
    *(Reason.TIME, Reason.MEMORY, Reason.NODE, Reason.CANCELLED),
    *(Reason.PREEMPTED, Reason.REVOKED),
)
_TAKEN = (Reason.CANCELLED, Reason.NODE, Reason.PREEMPTED, Reason.REVOKED)  # by others
_AT_THE_LIMIT = (14, 15)  # of time: what a command gets that is signalled along with its job
_CAUSES = {  # that a task's outcome itself names
    "input": Reason.INPUT,
    "memory": Reason.MEMORY,
    "checkpoint": Reason.CHECKPOINT,
}
_OURS = "hpcpipe: "
NOT_SET_UP = "hpcpipe: could not be started: "  # as templates/base.sh.j2 says it
_ERROR = r"(?i)error|unable|cannot|not found|no such|unknown"
_END, _LONG = 8192, 300  # bytes at the end of a log, characters of a message
DAMAGED = State.LOST, Reason.DAMAGED, "its outcome on disk is not what was written"


def from_outcome(
    outcome: Mapping[str, Any], end: JobEnd | None, batch: BatchRecord
) -> tuple[State, Reason, str]:
    """Conclude from an outcome that went wrong, and the accounting where a signal ended it."""
    if not outcome:
        return State.FAILED, Reason.DAMAGED, f"it failed, and {DAMAGED[2]}"
    words = str(outcome.get("error", ""))
    if barred := outcome.get("barred"):  # in a pack, whose end shows nothing of one task
        return _CODES[barred]
    cause = outcome.get("cause")
    if cause == "checkpoint" and end and end.reason in _TAKEN:  # though it managed to save
        return from_end(end, batch)
    if cause in _CAUSES:
        return State.FAILED, _CAUSES[cause], words
    signal, terminated = outcome.get("signal"), outcome.get("terminated")
    if signal is not None or terminated:
        if end and end.reason in _SENT:
            return from_end(end, batch)
        # The accounting does not know, or PBS has none: by what the task itself measured.
        asked, used = batch.resources.memory, (outcome.get("max_memory") or 0) / 1024
        if asked and signal in _KILLS and used > _KILLS[signal] * asked:
            return State.FAILED, Reason.MEMORY, _memory_words(used, batch)
        limit, wall = batch.resources.time, outcome.get("wall") or 0
        if (terminated or signal in _AT_THE_LIMIT) and limit and wall > 0.9 * limit:
            return State.FAILED, Reason.TIME, words
        if signal is not None:
            return State.FAILED, Reason.SIGNAL, words
    if reason := reason_said(words):
        return State.FAILED, reason, words
    if outcome.get("exit") is not None:
        return State.FAILED, Reason.EXIT, words
    if words.startswith("MemoryError") and batch.resources.memory:
        # Some schedulers kill nothing, and let a process have no more memory.
        return State.FAILED, Reason.MEMORY, f"{words}{_limit(batch)}"
    return State.FAILED, Reason.ERROR, words


def from_end(end: JobEnd, batch: BatchRecord) -> tuple[State, Reason, str]:
    """Conclude from the accounting alone: the task left nothing on disk."""
    if end.reason is None and batch.starts is not None:  # its pack had the outcome of each task
        return DAMAGED
    if end.reason is None:
        return State.LOST, Reason.LOST, f"the scheduler says {end.native}, but no outcome is there"
    if end.reason is Reason.UPSTREAM:
        return _CODES[UPSTREAM_FAILED]
    if end.exit_code in _CODES:
        return _CODES[end.exit_code]
    if end.reason is Reason.CANCELLED:
        return State.CANCELLED, Reason.CANCELLED, _named(end.native)
    if end.reason is Reason.MEMORY or end.exit_code == OVER_MEMORY:
        return State.FAILED, Reason.MEMORY, _memory_words(end.max_memory or 0, batch)
    if end.reason is Reason.EXIT:
        return State.FAILED, Reason.EXIT, f"exit {end.exit_code}, without an outcome; see its log"
    if end.reason is Reason.LOST:
        return State.LOST, Reason.LOST, end.native
    where = f" on {end.host}" if end.host else ""
    return State.FAILED, end.reason, f"{end.native}{where}"


def setup_words(log: Path) -> str:
    """Return what a log says of a setup that failed: the command's own words, then its line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.stat(file.fileno()).st_size - _END))
            before, mark, line = file.read().decode(errors="replace").rpartition(NOT_SET_UP)
    except OSError:
        return ""
    lines = [text.strip() for text in before.rpartition(NOT_SET_UP)[2].splitlines() if text.strip()]
    errors = [at for at, text in enumerate(lines) if re.search(_ERROR, text)]
    own = " ".join(lines[errors[0] if errors else -1 :])[:_LONG]
    return f"{own} ({line.splitlines()[0]})" if mark and own else line.partition("\n")[0]


def own_words(log: Path) -> str:
    """Return the last line of ours in a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.stat(file.fileno()).st_size - _END))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    ours = (line.removeprefix(_OURS)[:_LONG] for line in lines[::-1] if line.startswith(_OURS))
    return next(ours, "")


def reason_said(words: str) -> Reason | None:
    """Return the reason that a task's own words give away; None where they give none."""
    return next(
        (one for one in Reason if one.about.said and re.search(one.about.said, words)), None
    )


def _named(native: str) -> str:
    """Name the user whose id a scheduler gives: ``CANCELLED by 1000``."""
    by = re.search(r"\bby (\d+)$", native)
    if by is None:
        return native
    from pwd import getpwuid

    try:
        return f"{native[: by.start(1)]}{getpwuid(int(by[1])).pw_name}"
    except KeyError:
        return native


def _memory_words(used: float, batch: BatchRecord) -> str:
    asked = batch.resources.memory
    of = f" of {format_memory(asked)}" if asked else ""
    return f"used {format_memory(round(used))}{of}" if used else f"killed{_limit(batch)}"


def _limit(batch: BatchRecord) -> str:
    asked = batch.resources.memory
    return f" at its limit of {format_memory(asked)}" if asked else ""
