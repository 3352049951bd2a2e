"""Slurm.

Commands: ``sbatch``, ``scontrol update``, ``squeue``, ``sacct`` (``scontrol show job`` where
there is no accounting), ``scancel``. Tried on a real Slurm 22.05.8, in the tests.

Site keys: ``[slurm] options``, extra ``#SBATCH`` directives passed through whole; ``requeue``,
whether a job whose node fails is started again by Slurm itself; ``cluster``, one of several that a
Slurm serves (``--clusters``, and ``-M`` in every question); ``memory`` and ``gpus``, how these are
asked for; ``signal``, sent to the script ahead of the time limit, which passes TERM on to the task;
``nodes``, whether ``--nodes=1 --ntasks=1`` must be there; ``nice``, how much nicer each batch is
than the one before.

Oddities worth knowing:

* Of two ``--gres`` or two ``--constraint`` the last alone counts, so that those of the site's
  options are joined to the task's own.
* A submit refused for a limit of jobs (``QOSMaxSubmitJobPerUserLimit``, …) may be taken later; this
  is from Slurm's documents, and was not tried.
* With ``-M``, ``squeue -h`` still prints a line ``CLUSTER: name``.
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
* With ``PriorityType=priority/multifactor`` and a weight for age, jobs that wait for none overtake
  those that wait for others; ``--nice`` in the order of submission keeps that order.
* With ``PriorityType=priority/basic`` a job that was held by ``--hold`` comes last when released,
  after those that wait for it. So what is to be held gets a begin in the year 2037 instead, and is
  released by ``StartTime=now``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, State, ranges
from hpcpipe.schedulers.base import CommandScheduler, Done, Run, run_command
from hpcpipe.schedulers.sacct import ENDED, FIELDS, LIVE, read_ends, read_scontrol
from hpcpipe.schedulers.sacct import spread as spread

_NEVER = "2037-01-01"  # when what is held would start
_NO_ACCOUNTING = "accounting storage is disabled"


class Slurm(CommandScheduler):
    """Slurm by its command line tools."""

    name: ClassVar[str] = "slurm"
    capabilities: ClassVar[Capabilities] = Capabilities(window=10, no_path=r"\\|%[0-9A-Za-z%]")
    unreachable_words: ClassVar[str] = (
        r"(?i)Unable to contact slurm controller|Connection refused|Connection timed out"
        r"|Socket timed out|Zero Bytes were transmitted|Unable to establish (control|configuration)"
        r"|Could not establish a configuration|Problem talking to the database"
        r"|Unable to connect to database|command not found"
        r"|Unexpected message received"  # so `scontrol`
    )
    # A limit of jobs, of whomever it is; a limit of their size or time shall not match.
    passing_words: ClassVar[str] = (
        r"(QOS|Assoc)(Max|Grp)\w*Submit\w*Limit|Resource temporarily unavailable"
        r"|temporarily unable to accept job"
    )

    def __init__(
        self, run: Run = run_command, cancels: int | None = None, cluster: str | None = None
    ) -> None:
        super().__init__(run, cancels)
        self._on = ("-M", cluster) if cluster else ()

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        words = ["sbatch", "--parsable", f"--comment=hpcpipe:{token}"]
        if held:
            words.append(f"--begin={_NEVER}")
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
        return ("scontrol", *self._on, "update", f"JobId={','.join(jobs)}", "StartTime=now")

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        # squeue cuts long index lists at 64 characters unless told otherwise, by a variable only.
        ask = ("squeue", *self._on, "-h", "-o", "%i|%T|%r|%S", "-j", ",".join(jobs))
        return ("env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", *ask)

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        if done.status and "Invalid job id" in done.stderr:
            return {}  # all of them have left the queue
        self.refuse(done)
        statuses = {}
        for line in _rows(done):
            element, native, why, start = [*line.split("|", 3), "", "", ""][:4]
            state = LIVE.get(native, State.UNKNOWN)
            if native in ENDED:
                continue  # still listed, but over: the accounting tells the rest
            if state is State.QUEUED and start.startswith(_NEVER):
                state, why = State.HELD, "JobHeldUser"
            elif state is State.QUEUED and why.startswith("JobHeld"):
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
        done = self._run(("scontrol", *self._on, "-o", "show", "job"), None)
        self.refuse(done)
        wanted = set(_bases(jobs))
        ends = read_scontrol(done.stdout)
        return {job: end for job, end in ends.items() if job.partition("_")[0] in wanted}

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 3600))
        # Never by element: those that were cancelled while they waited have no row of their own.
        ids = ",".join(_bases(jobs))
        return ("sacct", *self._on, "-n", "-P", "-D", "-S", start, "-o", FIELDS, "-j", ids)

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        if _NO_ACCOUNTING in done.stderr:
            raise SchedulerError(done.words)
        self.refuse(done)
        return read_ends(done.stdout)

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("scancel", *self._on, *jobs)

    def find_command(self) -> tuple[str, ...]:
        return ("squeue", *self._on, "-h", "--me", "-o", "%F|%k")

    def read_find(self, done: Done) -> Mapping[str, str]:
        self.refuse(done)
        found = {}
        for line in _rows(done):
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


def _rows(done: Done) -> Iterator[str]:
    """Give squeue's rows, without the line that names the cluster."""
    return (line for line in done.stdout.splitlines() if not line.startswith("CLUSTER: "))


def _bases(jobs: Collection[str]) -> Iterable[str]:
    """Give the jobs that these jobs and elements belong to, each once."""
    return dict.fromkeys(job.partition("_")[0] for job in jobs)


def _dependency(after: Sequence[After]) -> str:
    """Spell dependencies: ``aftercorr:7,afterok:8:9_4,afterany:10``."""
    kinds: dict[str, list[str]] = {"aftercorr": [], "afterok": [], "afterany": []}
    for one in after:
        kind = "aftercorr" if one.kind == "each" else "afterok" if one.well else "afterany"
        kinds[kind].append(one.job if one.element is None else f"{one.job}_{one.element}")
    return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds.items() if jobs)


def array_spec(indices: Sequence[int]) -> str:
    """Spell indices for ``--array``: ``0-68`` or ``1,4-7``."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(indices))
