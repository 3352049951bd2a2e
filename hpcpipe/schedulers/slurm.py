"""Slurm.

Commands: ``sbatch``, ``scontrol release``, ``squeue``, ``sacct`` (``scontrol show job`` where
there is no accounting), ``scancel``. Tried on a real Slurm 22.05.8, in the tests.

Site keys: ``[slurm] options``, extra ``#SBATCH`` directives passed through whole, and
``requeue``, whether a job whose node fails is started again by Slurm itself.

Oddities worth knowing:

* Ids within ``afterok`` are joined by colons; after a comma a new dependency type is expected.
* ``--kill-on-invalid-dep=yes`` always: else a job whose predecessor failed pends for ever.
* Before 23.02 a dependency on a job that the controller has forgotten (``MinJobAge``, 300 s) is
  taken as met. So nobody may depend on a job that has ended, and the script checks for itself.
* ``aftercorr`` looks at the lowest 10 pending elements only, unless the site raised
  ``SchedulerParameters=correspond_after_task_cnt``.
* ``ExitCode 0:0`` is not success (a timed-out job has it): only the state COMPLETED is. ``sacct``
  22.05 subtracts 128 from exit codes above it; the outcome on disk has the true one.
* With ``JobAcctGatherParams=OverMemoryKill`` a job killed for its memory is FAILED or CANCELLED by
  signal 9, not OUT_OF_MEMORY: its MaxRSS is compared with what was asked.
* The names of logs are joined to the run folder's path before ``%a`` in them is replaced, so that
  such a word, or a backslash, in the path itself would lead them elsewhere.
* ``sacct`` runs about a second late; an empty or RUNNING answer means "not known yet".
* Elements that are cancelled while they are held, but not the whole job, leave no trace at all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, Reason, State, ranges
from hpcpipe.schedulers.base import CommandScheduler, Done

_UNREACHABLE = (
    r"(?i)Unable to contact slurm controller|Connection refused|Connection timed out"
    r"|Socket timed out|Zero Bytes were transmitted|Unable to establish (control|configuration)"
    r"|Could not establish a configuration|Problem talking to the database"
    r"|Unable to connect to database|command not found"
    r"|Unexpected message received"  # so `scontrol release`
)
_NO_ACCOUNTING = "accounting storage is disabled"
_LIVE = {
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
_ENDED = {
    "COMPLETED": None,
    "FAILED": Reason.EXIT,
    "TIMEOUT": Reason.TIME,
    "DEADLINE": Reason.TIME,
    "OUT_OF_MEMORY": Reason.MEMORY,
    "NODE_FAIL": Reason.NODE,
    "BOOT_FAIL": Reason.NODE,
    "LAUNCH_FAILED": Reason.NODE,
    "CANCELLED": Reason.CANCELLED,
    "PREEMPTED": Reason.CANCELLED,
    "REVOKED": Reason.CANCELLED,
}
_FIELDS = "JobID,State,ExitCode,MaxRSS,ReqMem,ElapsedRaw,NodeList"
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024, "": 1 / 1024 / 1024}


class Slurm(CommandScheduler):
    """Slurm by its command line tools."""

    name: ClassVar[str] = "slurm"
    capabilities: ClassVar[Capabilities] = Capabilities(no_path=r"\\|%[0-9A-Za-z%]")

    def unreachable(self, done: Done) -> bool:
        return bool(re.search(_UNREACHABLE, done.stderr))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        words = ["sbatch", "--parsable", f"--comment=hpcpipe:{token}"]
        if held:
            words.append("--hold")
        if after:
            words.append(f"--dependency={_dependency(after)}")
            words.append("--kill-on-invalid-dep=yes")
        return (*words, f"{script.parent.name}/{script.name}")

    def read_submit(self, done: Done) -> str:
        self.refuse(done)
        lines = done.stdout.strip().splitlines()
        match = re.fullmatch(r"(\d+)(?:;\S+)?", lines[-1].strip()) if lines else None
        if match is None:
            raise SchedulerError(f"{done.words}\n(sbatch gave no job id)")
        return match[1]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("scontrol", "release", ",".join(jobs))

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        # squeue cuts long index lists at 64 characters unless told otherwise, by a variable only.
        return ("env", "SLURM_BITSTR_LEN=0", "squeue", "-h", "-o", "%i|%T|%r", "-j", ",".join(jobs))

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        if done.status and "Invalid job id" in done.stderr:
            return {}  # all of them have left the queue
        self.refuse(done)
        statuses = {}
        for line in done.stdout.splitlines():
            element, native, why = [*line.split("|", 2), "", ""][:3]
            state = _LIVE.get(native, State.UNKNOWN)
            if native in _ENDED:
                continue  # still listed, but over: the accounting tells the rest
            if state is State.QUEUED and why.startswith("JobHeld"):
                state = State.HELD
            elif why == "DependencyNeverSatisfied":
                state = State.BLOCKED
            status = JobStatus(state, native, "" if why == "None" else why)
            for one in spread(element):
                statuses[one] = status
        return statuses

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        try:
            return super().account(jobs, since)
        except SchedulerError as error:
            if _NO_ACCOUNTING not in str(error):
                raise
        done = self._run(("scontrol", "-o", "show", "job"), None)
        self.refuse(done)
        wanted = set(_bases(jobs))
        ends = _read_scontrol(done.stdout)
        return {job: end for job, end in ends.items() if job.partition("_")[0] in wanted}

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 3600))
        # Never by element: those that were cancelled while they waited have no row of their own.
        ids = ",".join(_bases(jobs))
        return ("sacct", "-n", "-P", "-D", "-S", start, "-o", _FIELDS, "-j", ids)

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        if _NO_ACCOUNTING in done.stderr:
            raise SchedulerError(done.words)
        self.refuse(done)
        rows: dict[str, list[str]] = {}
        peak: dict[str, float] = {}
        for line in done.stdout.splitlines():
            fields = line.split("|")
            job, _, step = fields[0].partition(".")
            if step:
                peak[job] = max(peak.get(job, 0), _mib(fields[3]))
            else:
                rows[job] = fields  # of several, after a requeue, the last one counts
        ends: dict[str, JobEnd] = {}
        # Rows of many elements first: they may go on naming some that have got a row of their own.
        for job, fields in sorted(rows.items(), key=lambda row: "[" not in row[0]):
            end = _end(fields, peak.get(job, 0))
            for element in spread(job):
                if end is not None:
                    ends[element] = end
                else:
                    ends.pop(element, None)
        return ends

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("scancel", *jobs)

    def find_command(self) -> tuple[str, ...]:
        return ("squeue", "-h", "--me", "-o", "%F|%k")

    def read_find(self, done: Done) -> Mapping[str, str]:
        self.refuse(done)
        found = {}
        for line in done.stdout.splitlines():
            job, _, comment = line.partition("|")
            if comment.startswith("hpcpipe:"):
                found[comment.removeprefix("hpcpipe:")] = job
        return found

    def accounts(self) -> Sequence[str]:
        from getpass import getuser

        user = f"user={getuser()}"
        ask = ("sacctmgr", "-nP", "list")
        default = self._run((*ask, "user", user, "format=DefaultAccount"), None)
        every = self._run((*ask, "associations", user, "format=Account"), None)
        names = dict.fromkeys((default.stdout + every.stdout).split())
        return () if every.status or default.status else tuple(names)

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"


def _bases(jobs: Collection[str]) -> Iterable[str]:
    """Give the jobs that these jobs and elements belong to, each once."""
    return dict.fromkeys(job.partition("_")[0] for job in jobs)


def _dependency(after: Sequence[After]) -> str:
    """Spell dependencies: ``aftercorr:7,afterok:8:9_4``."""
    each = [one.job for one in after if one.kind == "each"]
    whole = [
        one.job if one.element is None else f"{one.job}_{one.element}"
        for one in after
        if one.kind == "all"
    ]
    kinds = (("aftercorr", each), ("afterok", whole))
    return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds if jobs)


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


def array_spec(indices: Sequence[int]) -> str:
    """Spell indices for ``--array``: ``0-68`` or ``1,4-7``."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(indices))


def _mib(text: str) -> float:
    """Read sacct's memory (``182340K``, ``400M``, older ``4Gc``) as MiB; nothing is 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _end(fields: Sequence[str], peak: float) -> JobEnd | None:
    """Read one accounting row, or None where the job has not ended by it."""
    _, state, exit_code, _, asked, elapsed, host = fields[:7]
    native = state.split(" ")[0].rstrip("+")  # "CANCELLED by 1000"
    if native in _LIVE:
        return None
    code, _, signal = exit_code.partition(":")
    reason = _ENDED.get(native, Reason.EXIT)
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
    )


def _read_scontrol(text: str) -> Mapping[str, JobEnd]:
    """Read ``scontrol -o show job``: the controller's memory, for want of accounting."""
    ends = {}
    for line in text.splitlines():
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
        if end is not None:
            ends.update(dict.fromkeys(spread(job), end))
    return ends
