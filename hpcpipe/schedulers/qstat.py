"""What ``qstat -f`` says of jobs, read: in the words and numbers of OpenPBS 23.06.06."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hpcpipe.model import JobEnd, JobStatus, Reason, State

Row = Mapping[str, Any]  # by attribute

_ATTRIBUTE = re.compile(r" {4}(\w+)(?:\.(\w+))? = (.*)")
_NUMBERS = ("Exit_status", "substate")

_LIVE = {
    "Q": State.QUEUED,
    "H": State.QUEUED,  # for another job; held by a user is told apart
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


@lru_cache(maxsize=1)  # of one answer: whether it is whole, and then what it says
def read(text: str) -> Mapping[str, Row]:
    """Read JSON, or the text that is printed where that is not asked for: rows by job.

    Raises ValueError for JSON that is none.
    """
    if not text.startswith("Job Id:"):
        jobs: Mapping[str, Row] = json.loads(text or "{}", strict=False).get("Jobs", {})
        return jobs
    return {
        job: dict(_attributes(lines.replace("\n\t", "").split("\n")))
        for job, _, lines in (part.partition("\n") for part in text.split("Job Id: ")[1:])
    }


def is_whole(text: str, complaints: str, words: Sequence[str]) -> bool:
    """Tell whether JSON is such, and says something of all jobs asked about, if of any."""
    try:
        jobs = read(text)
    except ValueError:
        return False
    told = {_number(word) for word in (*jobs, *complaints.split())}
    asked = {_number(word) for word in words if word[:1].isdigit()}
    return not jobs or asked <= told


def _number(job: str) -> str:
    return job.partition(".")[0]


def _attributes(lines: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Read the attributes of a job, line by line; those of one thing together."""
    groups: dict[str, dict[str, str]] = {}
    for name, part, value in (found.groups() for found in map(_ATTRIBUTE.match, lines) if found):
        if part:
            groups.setdefault(name, {})[part] = value
        elif name == "Variable_List":
            pairs = (one.partition("=") for one in value.split(","))
            groups[name] = {variable: given for variable, _, given in pairs}
        else:
            yield name, int(value) if name in _NUMBERS else value
    yield from groups.items()


def status(row: Row) -> JobStatus:
    """Say how a job stands that has not ended."""
    native, why = row["job_state"], row.get("comment") or row.get("depend") or ""
    state = _LIVE.get(native, State.UNKNOWN)
    if native == "B":
        state = State.QUEUED
    elif native == "H" and "u" in row.get("Hold_Types", ""):
        state = State.HELD
    elif native == "Q" and why.startswith("Can Never Run"):
        state = State.BLOCKED
    return JobStatus(state, native, "" if state is State.RUNNING else why)


def end(row: Row) -> JobEnd:
    """Say how a job ended."""
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
    if code is not None and code > SIGNAL:
        return ended._replace(signal=code - SIGNAL)
    return ended._replace(exit_code=code if code is not None and code >= 0 else None)


def _reason(code: int | None, row: Row) -> Reason | None:
    if row.get("substate") == DELETED or (code is None and row["job_state"] == "X"):
        return Reason.CANCELLED
    if code is None:
        return Reason.UPSTREAM if row.get("depend") else Reason.CANCELLED
    if code < 0:
        return _LIMITS.get(code, Reason.NODE)
    if code > SIGNAL:
        return Reason.SIGNAL
    return Reason.EXIT if code else None
