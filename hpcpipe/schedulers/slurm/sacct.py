"""How Slurm's jobs end, as ``sacct`` and ``scontrol`` tell it; and its words for their states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import Done

LIVE = {
    "PENDING": State.QUEUED,
    "REQUEUED": State.QUEUED,
    "REQUEUE_HOLD": State.HELD,
    "SPECIAL_EXIT": State.HELD,
    "CONFIGURING": State.RUNNING,
    "RUNNING": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "RESIZING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
}
ENDED = {
    "COMPLETED": None,
    "FAILED": Reason.EXIT,
    "TIMEOUT": Reason.TIME,
    "DEADLINE": Reason.TIME,
    "OUT_OF_MEMORY": Reason.MEMORY,
    "NODE_FAIL": Reason.NODE,
    "BOOT_FAIL": Reason.NODE,
    "LAUNCH_FAILED": Reason.NODE,
    "CANCELLED": Reason.CANCELLED,
    "PREEMPTED": Reason.PREEMPTED,
    "REVOKED": Reason.REVOKED,
}
_NO_FILES = "53"  # as a signal: the log or the folder of a job could not be opened
FIELDS = "JobID,State,ExitCode,MaxRSS,ReqMem,ElapsedRaw,NodeList"
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024, "": 1 / 1024 / 1024}


def read_ends(text: str) -> Mapping[str, JobEnd | JobStatus]:
    """Read ``sacct -P`` rows of `FIELDS`: how each element ended, or that it has not.

    Raises ValueError for a row that cannot be read; what does not begin as a row is a banner.
    """
    rows: dict[str, list[str]] = {}
    peak: dict[str, float] = {}
    for line in text.splitlines():
        if not line[:1].isdigit():
            continue
        fields = line.split("|")
        if len(fields) != len(FIELDS.split(",")):
            raise ValueError(line)
        job, _, step = fields[0].partition(".")
        if step:
            peak[job] = max(peak.get(job, 0), _mib(fields[3]))
        else:
            rows[job] = fields  # of several, after a requeue, the last one counts
    ends: dict[str, JobEnd | JobStatus] = {}
    # Rows of many elements first: they may go on naming some that have got a row of their own.
    for job, fields in sorted(rows.items(), key=lambda row: "[" not in row[0]):
        end = _end(fields, peak.get(job, 0))
        ends.update(dict.fromkeys(spread(job), end))
    return ends


def read_starts(text: str) -> list[JobEnd]:
    """Read ``sacct -P -D`` rows of `FIELDS` of one element: how all starts but the last ended.

    Raises ValueError for a row that cannot be read.
    """
    rows = [line.split("|") for line in text.splitlines() if line[:1].isdigit()]
    starts = []
    for _, state, _, _, _, elapsed, host in [row for row in rows if "." not in row[0]][:-1]:
        native = state.split(" ")[0]
        starts.append(JobEnd(native, ENDED.get(native), wall=float(elapsed or 0), host=host))
    return starts


def spread(job: str) -> Iterator[str]:
    """Spread an array row into its elements: ``7_[1-2,9%4]`` → ``7_1 7_2 7_9``."""
    base, bracket, inside = job.partition("_[")
    if not bracket:
        yield job
        return
    for part in inside.rstrip("]").partition("%")[0].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{base}_{index}"


def _mib(text: str) -> float:
    """Read sacct's memory (``182340K``, ``400M``, older ``4Gc``) as MiB; nothing is 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _end(fields: Sequence[str], peak: float) -> JobEnd | JobStatus:
    """Read one accounting row: how the job ended, or that it has not."""
    _, state, exit_code, _, asked, elapsed, host = fields[:7]
    native = state.split(" ")[0].rstrip("+")  # "CANCELLED by 1000"
    if native not in ENDED:
        return JobStatus(LIVE.get(native, State.UNKNOWN), native)
    code, _, signal = exit_code.partition(":")
    reason = ENDED[native]
    if reason is Reason.EXIT and signal == _NO_FILES:
        said = f"{state}, exit code {exit_code}: its log or folder cannot be opened"
        return JobEnd(said, Reason.START, host=host)
    # Killed by signal 9 with more memory than asked for: OverMemoryKill's only trace.
    if reason in (Reason.EXIT, Reason.CANCELLED) and signal == "9" and peak > _mib(asked) > 0:
        reason = Reason.MEMORY
    elif reason is Reason.EXIT and int(signal or 0):
        reason = Reason.SIGNAL
    return JobEnd(
        native=state,
        reason=reason,
        exit_code=None if int(signal or 0) else int(code or 0),
        signal=int(signal or 0) or None,
        max_memory=round(peak) or None,
        wall=float(elapsed or 0),
        host="" if host == "None assigned" else host,
        memory_limit=round(_mib(asked)) or None,
    )


def read_scontrol(done: Done) -> Mapping[str, JobEnd | JobStatus]:
    """Read ``scontrol -o show job``: the controller's memory, for want of accounting."""
    ends: dict[str, JobEnd | JobStatus] = {}
    for line in done.stdout.splitlines():
        if not line.startswith("JobId="):
            continue  # a banner, or "No jobs in the system"
        facts = dict(re.findall(r"(\w+)=(\S*)", line))
        array, index = facts.get("ArrayJobId"), facts.get("ArrayTaskId", "")
        job = facts.get("JobId", "")
        if array:
            job = f"{array}_{index}" if index.isdigit() else f"{array}_[{index}]"
        clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", facts.get("RunTime", ""))
        d, h, m, s = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0, 0)
        elapsed = str(d * 86400 + h * 3600 + m * 60 + s)
        state, host = facts.get("JobState", ""), facts.get("NodeList", "")
        end = _end((job, state, facts.get("ExitCode", "0:0"), "", "", elapsed, host), 0)
        ends.update(dict.fromkeys(spread(job), end))
    return ends
