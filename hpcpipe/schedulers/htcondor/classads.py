"""HTCondor's job ads, and the events of its logs: the state of a job.

From the queue and the history they come as JSON. A job's event log says the same, and is read by
HTCondor's own bindings (PyPI: ``htcondor``) where they are installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done

Row = Mapping[str, Any]

_OF_A_HOLD = ("HoldReason", "HoldReasonCode", "HoldReasonSubCode")
_ATTRIBUTES = ",".join((
    *("ClusterId", "ProcId", "JobStatus", "DAGManJobId", "DAGNodeName", "HpcpipeDag", "Iwd"),
    *(*_OF_A_HOLD, *(f"Last{name}" for name in _OF_A_HOLD), "LastJobStatus", "RemoveReason"),
    *("ExitBySignal", "ExitCode", "ExitSignal", "RemoteWallClockTime", "LastRemoteHost"),
    *("ResidentSetSize", "MemoryUsage"),
))  # fmt: skip
_REMOVED, _COMPLETED, _HELD = 3, 4, 5
_STATES = {
    1: (State.QUEUED, "IDLE"),
    2: (State.RUNNING, "RUNNING"),
    _REMOVED: (State.RUNNING, "REMOVED"),  # until it is gone
    _HELD: (State.FAILED, "HELD"),
    _COMPLETED: (State.RUNNING, "COMPLETED"),
    6: (State.RUNNING, "TRANSFERRING_OUTPUT"),
    7: (State.RUNNING, "SUSPENDED"),
}
_BY_HAND = (1, 15)  # codes of condor_hold, and of what was submitted held
_HOLDS = {34: Reason.MEMORY, 46: Reason.TIME, 47: Reason.TIME}
_BY_POLICY = (21, 102)  # of the host's, that of memory: code and subcode
_SUBMIT, _EXECUTE, _TERMINATE, _SIZE, _ABORT, _HOLD, _RELEASE = 0, 1, 5, 6, 9, 12, 13  # events


def question(*jobs: str) -> tuple[str, ...]:
    """Ask about the DAGs of these jobs, and what is in them; without jobs, about all of ours."""
    wanted = "HpcpipeDag =!= undefined || DAGManJobId =!= undefined"
    if jobs:
        clusters = sorted(set(map(cluster_of, jobs)), key=int)
        wanted = " || ".join(f"ClusterId == {one} || DAGManJobId == {one}" for one in clusters)
    return ("-json", "-attributes", _ATTRIBUTES, "-constraint", wanted)


def element(row: Row) -> str:
    """Return the id of a job that DAGMan submitted."""
    return f"{row['DAGManJobId']}/{row['DAGNodeName']}"


def cluster_of(job: str) -> str:
    """Return the cluster of the DAG that a job or element is in."""
    return re.split("[/_]", job)[0]


def job_of(element: str) -> str:
    """Return the job that an element is of; a plain job is its own."""
    return element.partition("_")[0]


def over(row: Row) -> bool:
    """Return whether a job in the queue has ended, or is about to leave it."""
    return row["JobStatus"] in (_REMOVED, _COMPLETED)


def rows(done: Done) -> Sequence[Row]:
    """Read ads printed as JSON; no ad is printed as nothing at all."""
    read: Sequence[Row] = json.loads(done.stdout.strip() or "[]", strict=False)
    return read


def status(row: Row) -> JobStatus:
    """Return the state of a job in the queue; HTCondor holds jobs after most failures."""
    code, hold = row["JobStatus"], row.get("HoldReasonCode")
    state, native = _STATES.get(code, (State.UNKNOWN, str(code)))
    if code != _HELD:
        return JobStatus(state, native)
    state = State.HELD if hold in _BY_HAND else state
    return JobStatus(state, native, str(row.get("HoldReason", "")), _hold(row))


def _hold(row: Row, when: str = "") -> Reason:
    """Return why a job is held; or with ``Last``, was held before it was removed."""
    code, subcode = (row.get(f"{when}HoldReason{kind}") for kind in ("Code", "SubCode"))
    by_policy = (code, subcode) == _BY_POLICY
    return Reason.MEMORY if by_policy else _HOLDS.get(code or 0, Reason.START)


def end(row: Row) -> JobEnd:
    """Return how a job ended that has left the queue."""
    reason: Reason | None = None
    native, signal, code = "COMPLETED", None, None
    if row["JobStatus"] == _REMOVED:
        native, reason = str(row.get("RemoveReason", "REMOVED")), Reason.CANCELLED
        # Removed while it was held: then that is why, unless somebody's hand held it.
        if row.get("LastJobStatus") == _HELD and row.get("LastHoldReasonCode") not in _BY_HAND:
            native, reason = str(row.get("LastHoldReason")), _hold(row, "Last")
    elif row.get("ExitBySignal"):
        signal, reason = row.get("ExitSignal"), Reason.SIGNAL
    else:
        code = row.get("ExitCode")
        reason = Reason.EXIT if code else None
    wall = row.get("RemoteWallClockTime")
    return JobEnd(
        native,
        reason,
        code,
        signal,
        max_memory=_memory(row),
        wall=None if wall is None else float(wall),
        host=str(row.get("LastRemoteHost", "")).rpartition("@")[2],
    )


def never(dagman: Row) -> JobEnd:
    """Return the end of all that DAGMan never began, by how DAGMan's own job ended."""
    own = end(dagman)
    if own.reason is Reason.CANCELLED:
        return own
    where = f"{dagman['HpcpipeDag']}.dag.dagman.out"
    return JobEnd(f"DAGMan ended before it, with exit code {own.exit_code}: {where}", Reason.START)


def _memory(row: Row) -> int | None:
    """Return the memory that a job used, in MiB; the history has an expression instead."""
    used, resident = row.get("MemoryUsage"), row.get("ResidentSetSize")
    if isinstance(used, int):
        return used
    return (resident + 1023) // 1024 if isinstance(resident, int) else None


def read_log(path: str) -> Sequence[Row] | None:
    """Read how jobs ended out of an event log, as ads.

    None where there is no such log, or nothing to read it with.
    """
    for name in ("htcondor2", "htcondor"):
        try:
            return [*_ended(import_module(name).JobEventLog(path).events(stop_after=0))]
        except Exception:  # of no class that all versions of the bindings share
            continue
    return None


def _ended(events: Iterable[Any]) -> Iterator[Row]:
    """Turn the events of a log into ads of the jobs that have ended."""
    ads: dict[tuple[int, int], dict[str, Any]] = {}
    for event in events:
        job = {"ClusterId": event.cluster, "ProcId": event.proc, "DAGNodeName": ""}
        ad = ads.setdefault((event.cluster, event.proc), job)
        kind = int(event.type)
        if kind == _SUBMIT:
            # "DAG Node: n1", and in later versions [ DAGNodeName = "n1"; … ]
            node = re.search(r'DAG ?Node(?:Name = "|: )(\w+)', event.get("LogNotes", ""))
            ad["DAGNodeName"] = node[1] if node else ""
        elif kind == _EXECUTE:
            ad |= {"LastRemoteHost": event.get("SlotName", ""), "began": event.timestamp}
        elif kind == _SIZE:
            ad["MemoryUsage"] = event.get("MemoryUsage")
        elif kind == _HOLD:
            ad |= {"LastJobStatus": _HELD} | {f"Last{one}": event.get(one) for one in _OF_A_HOLD}
        elif kind == _RELEASE:
            ad |= {"LastJobStatus": None}
        elif kind == _ABORT:
            ad |= {"JobStatus": _REMOVED, "RemoveReason": event.get("Reason", "REMOVED")}
        elif kind == _TERMINATE:
            ad |= {
                "JobStatus": _COMPLETED,
                "ExitBySignal": not event.get("TerminatedNormally"),
                "ExitCode": event.get("ReturnValue"),
                "ExitSignal": event.get("TerminatedBySignal"),
                "MemoryUsage": event.get("MemoryUsage"),
            }
        if kind in (_HOLD, _ABORT, _TERMINATE) and "began" in ad:
            ad["RemoteWallClockTime"] = event.timestamp - ad.pop("began")
    yield from (ad for ad in ads.values() if "JobStatus" in ad)
