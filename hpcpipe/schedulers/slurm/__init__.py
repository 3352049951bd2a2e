"""Slurm.

Commands: ``sbatch``, ``scontrol update``, ``squeue``, ``sacct`` (``scontrol show job`` where
there is no accounting), ``scancel``. Tried on a real Slurm 22.05.8, in the tests.

Dependencies: ``--dependency=aftercorr:`` for elements, ``afterok:`` for an array or one element.

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
* A job is OUT_OF_MEMORY also if it ended with 0 and only a process of it was killed.
* With ``JobAcctGatherParams=OverMemoryKill`` a job killed for its memory is FAILED or CANCELLED by
  signal 9, not OUT_OF_MEMORY: its MaxRSS is compared with what was asked.
* The names of logs are joined to the run folder's path before ``%a`` in them is replaced, so that
  such a word, or a backslash, in the path itself would lead them elsewhere.
* ``ExitCode 0:53`` is no signal: the log or the folder of the job could not be opened.
* ``sacct`` runs about a second late: RUNNING may mean "not known yet".
* A user's SQUEUE_*, SACCT_*, SCANCEL_*, SCONTROL_* and SLURM_CLUSTERS are kept from its commands,
  or they would hide jobs; ``cluster`` is how to reach another one.
* SBATCH_* and the SLURM_* of an outer job would win over the script's directives: they are kept
  from ``sbatch``.
* Elements that are cancelled while they are held, but not the whole job, leave no trace at all.
* With ``PriorityType=priority/multifactor`` and a weight for age, jobs without waits overtake
  those that wait for others; ``--nice`` in the order of submission keeps that order.
* With ``PriorityType=priority/basic`` a job that was held by ``--hold`` comes last when released,
  after those that wait for it. So what is to be held gets a begin in the year 2037 instead, and is
  released by ``StartTime=now``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import (
    CommandScheduler,
    Done,
    Run,
    printed,
    run_command,
    setting,
    without,
)
from hpcpipe.schedulers.slurm.sacct import (
    ENDED,
    FIELDS,
    LIVE,
    read_ends,
    read_scontrol,
    read_starts,
    spread,
)

# Where Slurm's own commands look, after $SLURM_CONF.
_CONFIGURATIONS = (
    *("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf"),
    *("/etc/slurm-llnl/slurm.conf", "/usr/local/etc/slurm.conf"),
)
_NEVER = "2037-01-01"  # when what is held would start
_SEEN_NEVER = ("2036-12-31", _NEVER)  # the same, by a client in another time zone
# What a user sets for their own eyes, or to reach another cluster, would hide or change jobs here.
_HIDDEN = r"(SQUEUE|SACCT|SCANCEL|SCONTROL)_\w+|SLURM_(CLUSTERS|TIME_FORMAT|BITSTR_LEN)"
_ROW = r"(\d+(?:[_+][^|]+)?)\|([^|]+)\|(.*)\|([^|]+)"  # of squeue's format %i|%T|%r|%S
_SUBMITTED = r"(?m)^[ \t]*(?:Submitted batch job )?(\d+)(?:;\S+)?[ \t\r]*$"
# Reasons of a pending job that no time will change, only a person: its request is beyond a limit.
# PartitionNodeLimit and ReqNodeNotAvail are not among them: nodes that are down come back. Nor is
# PartitionConfig, which stands for any limit until the scheduler has looked at the job.
_STUCK = {
    r"PartitionTimeLimit": "requests more time than the partition allows",
    r"\w*NotAllowed": "the partition does not take it",
    r"BadConstraints": "no node has what it requests",
    r"Invalid(Account|QOS)": "the account or QOS is not valid",
    r"ReservationDeleted": "its reservation is gone",
    r"(Assoc|QOS)\w*PerJob\w*|(Assoc|QOS)MaxWall\w*|QOSMin\w+|MaxMemPerLimit": (
        "requests more or less than its account or QOS allows for a job"
    ),
    r"JobHoldMaxRequeue|launch.failed.requeued.held": "its nodes failed to start it",
}
_NO_ACCOUNTING = "accounting storage is disabled"


class Slurm(CommandScheduler):
    """Slurm by its command line tools."""

    name: ClassVar[str] = "slurm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        window=10, warns=True, mail=True, tells_kills=True, no_path=r"\\|%[0-9A-Za-z%]"
    )
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
        self._cluster = cluster or ""
        self._on = ("-M", cluster) if cluster else ()

    def find_instance(self) -> str:
        files = [os.environ["SLURM_CONF"]] if os.environ.get("SLURM_CONF") else _CONFIGURATIONS
        name = self._cluster or setting("ClusterName", *files)
        if not name:
            shown = self.ask(("scontrol", "show", "config"))
            self.answered(shown)
            match = re.search(r"(?m)^ClusterName\s*=\s*(\S+)", shown.stdout)
            name = match[1] if match else ""
        return name.lower()  # as slurmctld itself has it

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
        # A site's wrapper may have words of its own; of two numbers nobody knows which is the job.
        return self.prove(done, printed(done, _SUBMITTED))[0]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        update = ("update", f"JobId={','.join(jobs)}", "StartTime=now")
        return (*without(_HIDDEN), "scontrol", *self._on, *update)

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        ask = ("squeue", *self._on, "--all", "-h", "-o", "%i|%T|%r|%S", "-j", ",".join(jobs))
        return (*_asking(), *ask)

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        if done.status and "Invalid job id" in done.stderr:
            return {}  # all of them have left the queue
        self.answered(done)
        statuses = {}
        for row in self.lines(done, _ROW):
            element, native, why, start = row.groups()
            state = LIVE.get(native, State.UNKNOWN)
            if native in ENDED:
                continue  # still listed, but over: the accounting tells the rest
            if state is State.QUEUED and start.startswith(_SEEN_NEVER):
                state, why = State.HELD, "JobHeldUser"
            elif state is State.QUEUED and why.startswith("JobHeld"):
                state = State.HELD
            elif why == "DependencyNeverSatisfied":
                state = State.BLOCKED
            status = JobStatus(state, native, "" if why == "None" else why)
            if state in (State.QUEUED, State.HELD):
                status = _stuck(status)
            statuses.update(dict.fromkeys(spread(element), status))
        return statuses

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        try:
            return super().account(jobs, since)
        except SchedulerError as error:
            if _NO_ACCOUNTING not in str(error):
                raise
        ask = ("scontrol", *self._on, "--all", "-o", "show", "job")
        done = self.ask((*_asking(), *ask))
        self.answered(done)
        wanted = set(_bases(jobs))
        self.uncut(done)
        ends = self.read(read_scontrol, done)
        return {job: end for job, end in ends.items() if job.partition("_")[0] in wanted}

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        # Never by element: those that were cancelled while they waited have no row of their own.
        return self._ask_accounting(",".join(_bases(jobs)), since)

    def _ask_accounting(self, ids: str, since: float) -> tuple[str, ...]:
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 3600))
        ask = ("sacct", *self._on, "-n", "-P", "-D", "-S", start, "-o", FIELDS, "-j", ids)
        return (*_asking(), *ask)

    def starts(self, element: str, since: float) -> Sequence[JobEnd]:
        done = self.ask(self._ask_accounting(element, since))
        self.answered(done)
        self.uncut(done)
        return self.read(lambda done: read_starts(done.stdout), done)

    def read_account(self, done: Done) -> Mapping[str, JobEnd | JobStatus]:
        if _NO_ACCOUNTING in done.stderr:
            raise SchedulerError(done.words)
        self.answered(done)
        self.uncut(done)
        return read_ends(done.stdout)

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return (*without(_HIDDEN), "scancel", *self._on, *jobs)

    def find_command(self) -> tuple[str, ...]:
        return (*_asking(), "squeue", *self._on, "--all", "-h", "--me", "-o", "%F|%k")

    def read_find(self, done: Done) -> Mapping[str, str]:
        self.answered(done)
        rows = [row.groups() for row in self.lines(done, r"(\d+)\|(.*)")]
        return {said[8:]: job for job, said in rows if said.startswith("hpcpipe:")}

    def accounts(self) -> Sequence[str]:
        from getpass import getuser

        user = f"user={getuser()}"
        ask = ("sacctmgr", "-nP", "list")
        default = self._run((*ask, "user", user, "format=DefaultAccount"), None)
        every = self._run((*ask, "associations", user, "format=Account"), None)
        names = dict.fromkeys((default.stdout + every.stdout).split())
        return () if every.status or default.status else tuple(names)

    def count(self) -> int | None:
        done = self.ask((*_asking(), "squeue", *self._on, "--all", "-h", "-r", "--me", "-o", "%i"))
        return None if done.status else len(done.stdout.splitlines())

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"


def _asking() -> tuple[str, ...]:
    """Begin a question: all index lists whole, not cut at 64 characters, and times as expected."""
    return without(_HIDDEN, SLURM_BITSTR_LEN="0", SLURM_TIME_FORMAT="standard")


def _stuck(status: JobStatus) -> JobStatus:
    """Return the status of a pending job as one that has failed, if it can never start."""
    for pattern, meaning in _STUCK.items():
        if re.match(rf"(?:{pattern})\b", status.why):
            why = f"{status.why}: {meaning}"
            return JobStatus(State.FAILED, status.native, why, Reason.NEVER)
    return status


def _bases(jobs: Collection[str]) -> Iterable[str]:
    """Return the jobs that these jobs and elements belong to, each once."""
    return dict.fromkeys(job.partition("_")[0] for job in jobs)


def _dependency(after: Sequence[After]) -> str:
    """Return the dependencies' option: ``aftercorr:7,afterok:8:9_4,afterany:10``."""
    kinds: dict[str, list[str]] = {"aftercorr": [], "afterok": [], "afterany": []}
    for one in after:
        kind = "aftercorr" if one.kind == "each" else "afterok" if one.well else "afterany"
        kinds[kind].append(one.job if one.element is None else f"{one.job}_{one.element}")
    return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds.items() if jobs)
