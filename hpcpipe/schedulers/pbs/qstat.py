"""Read the output of ``qstat -f``, in the words and numbers of OpenPBS 23.06.06."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcpipe.jobs import JobEnd, JobStatus, Reason, State

Row = Mapping[str, Any]  # by attribute

_ATTRIBUTE = re.compile(r" {4}(\w+)(?:\.(\w+))? = (.*)")
_NUMBERS = ("Exit_status", "substate")

BEGUN = "B"  # an array of which elements have run

_LIVE = {
    BEGUN: State.QUEUED,
    "Q": State.QUEUED,
    "H": State.QUEUED,  # for another job; a hold by a user is recognised elsewhere
    "W": State.QUEUED,
    "T": State.QUEUED,
    "R": State.RUNNING,
    "E": State.RUNNING,
    "S": State.RUNNING,
    "U": State.RUNNING,
}
_LIMITS = {-29: Reason.TIME, -28: Reason.TIME, -27: Reason.MEMORY, -26: Reason.MEMORY}
DELETED = 91  # substate
SIGNAL = 256  # the Exit_status of a signal is so much higher
_SHELL = range(129, 193)  # of a shell that a signal ended; 255 is no signal


def read(text: str) -> Mapping[str, Row]:
    """Read the attributes of jobs, by job. Raises ValueError for text that is cut short."""
    before, *parts = re.split(r"(?m)^Job Id: ", text)
    if before.strip() or (parts and not text.endswith("\n\n")):
        raise ValueError("it is cut short")
    rows = {}
    for part in parts:
        job, _, lines = part.partition("\n")
        row = dict(_attributes(lines.replace("\n\t", "").split("\n")))
        # An element that never ran has the attributes of its array; they say nothing of it.
        ran = "array_index" in row or "exec_host" in row or not re.search(r"\[\d", job)
        rows[job] = row if ran else {**row, "Exit_status": None, "substate": DELETED}
    return rows


def _attributes(lines: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Read the attributes of a job, line by line; those of one thing together."""
    groups: dict[str, dict[str, str]] = {}
    for name, part, value in (found.groups() for found in map(_ATTRIBUTE.match, lines) if found):
        if part:
            groups.setdefault(name, {})[part] = value
        elif name == "Variable_List":
            pairs = (one.partition("=") for one in re.split(r"(?<!\\),", value))
            groups[name] = {variable: given for variable, _, given in pairs}
        else:
            yield name, int(value) if name in _NUMBERS else value
    yield from groups.items()


def status(row: Row) -> JobStatus:
    """Return the state of a job that has not ended."""
    native, why = row["job_state"], row.get("comment", "").removeprefix("Not Running: ")
    state = _LIVE.get(native, State.UNKNOWN)
    if native == "H" and "u" in row.get("Hold_Types", ""):
        state, why = State.HELD, "JobHeldUser"
    elif native == "H" and re.search(r"\bafter", row.get("depend", "")):
        why = "Dependency"
    elif native == "Q" and why.startswith("Can Never Run"):
        return JobStatus(State.FAILED, native, why, Reason.NEVER)
    # The comment of what runs, and of an array with all that waits in it, says when it began.
    began = state is State.RUNNING or why.startswith("Job Array Began")
    return JobStatus(state, native, "" if began else why)


def end(row: Row) -> JobEnd:
    """Return how a job ended."""
    code, used = row.get("Exit_status"), row.get("resources_used", {})
    memory = re.match(r"(\d+)kb", str(used.get("mem", "")))
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d)", str(used.get("walltime", "")))
    ended = JobEnd(
        native=row.get("comment") or row["job_state"],
        reason=_reason(code, row),
        max_memory=round(int(memory[1]) / 1024) if memory else None,
        wall=float(int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])) if clock else None,
        host=row.get("exec_host", "").partition("/")[0],
    )
    if code is not None and (code > SIGNAL or code in _SHELL):
        return ended._replace(signal=code % 128)
    return ended._replace(exit_code=code if code is not None and code >= 0 else None)


def _reason(code: int | None, row: Row) -> Reason | None:
    if row.get("substate") == DELETED or (code is None and row["job_state"] == "X"):
        return Reason.CANCELLED
    if code is None:
        return Reason.UPSTREAM if row.get("depend") else Reason.CANCELLED
    if code < 0:
        return _LIMITS.get(code, Reason.NODE)
    if code > SIGNAL or code in _SHELL:
        return Reason.SIGNAL
    return Reason.EXIT if code else None
