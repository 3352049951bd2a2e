"""Grid Engine: Son of Grid Engine, and what else descends from Sun's (Univa, Altair, OCS).

Commands: ``qsub -terse``, ``qrls``, ``qstat -xml`` (``qstat -j`` for the reason of an error, and
for tokens), ``qacct``, ``qdel``. Tried on a real Son of Grid Engine 8.1.9, in the tests; the output
of the others is read by name and unit, as far as it has both.

Site keys: ``[sge] options``, extra ``#$`` directives passed through whole; the names of the
parallel environment and of the resources to ask for; ``requeue``, as with Slurm.

Oddities worth knowing:

* ``-hold_jid`` waits for an end, not for a good one, and is met by a job that nobody knows. What an
  element needs it looks for itself, and ends with a code of ours if that is not there.
* ``-hold_jid_ad`` pairs arrays of the same range only, and no job can wait for one element.
* Arrays are ranges, from 1. Outside of one SGE_TASK_ID is the word ``undefined``.
* ``Eqw``: it could not be started (folder, log, shell); it stays so, and what waits for it waits.
* Exit codes 99 and 100 mean "start again" and "make it Eqw". No script of ours ends with either.
* The shebang counts for nothing: ``-S /bin/sh``. ``-l`` counts per slot if it is a consumable.
* ``$JOB_ID`` and the like are replaced in the name of a log, its folder included.
* ``qacct`` takes one id, or all of a user that were started since. A job that was deleted before it
  was started is in neither ``qstat`` nor ``qacct``; one that has ended is not for 15 s, by default.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from hpcpipe.errors import SchedulerError
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, State
from hpcpipe.schedulers.base import CommandScheduler, Done
from hpcpipe.schedulers.qacct import read_records, spread

T = TypeVar("T", JobStatus, JobEnd)
_KNOWN = set("hqwrtRsSTNPdE")  # the letters of a state


class Sge(CommandScheduler):
    """Grid Engine by its command line tools."""

    name: ClassVar[str] = "sge"
    capabilities: ClassVar[Capabilities] = Capabilities(
        element_dependency=False, sparse=False, subset=False, success=False, first_index=1,
        no_path=r"\n|\$(HOME|USER|JOB_ID|JOB_NAME|HOSTNAME|TASK_ID)",
    )  # fmt: skip
    unreachable_words: ClassVar[str] = (
        r"(?i)unable to (send message|contact|connect)|commlib|got (send|select) error"
        r"|read qmaster name|cell directory|set the environment variable SGE_ROOT|timeout"
    )
    passing_words: ClassVar[str] = r"only \d+ jobs are allowed per (user|cluster)"

    def unreachable(self, done: Done) -> bool:
        return super().unreachable(done._replace(stderr=done.stderr + done.stdout))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        flags = self.flags(after, token=token, held=held)
        return ("qsub", "-terse", *flags, f"{script.parent.name}/{script.name}")

    def flags(self, after: Sequence[After], *, token: str, held: bool) -> tuple[str, ...]:
        """Spell all that is known at submission only."""
        return ("-ac", f"hpcpipe={token}", *(("-h",) if held else ()), *hold(after))

    def read_submit(self, done: Done) -> str:
        self.refuse(done)
        lines = done.stdout.strip().splitlines()  # those of a site's checks come first
        match = re.fullmatch(r"(\d+)(?:\.\d+-\d+:\d+)?", lines[-1].strip()) if lines else None
        if match is None:
            raise SchedulerError(f"{done.words}\n(qsub gave no job id)")
        return match[1]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qrls", *jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        statuses = _only(jobs, super().poll(jobs))
        stuck = {_number(e) for e, one in statuses.items() if one.state is State.FAILED}
        if not stuck:
            return statuses
        done = self._run(("qstat", "-j", ",".join(sorted(stuck))), None)
        why = dict(_described(done.stdout, r"error reason\s+\d+:\s*(.*)"))
        return {
            element: one._replace(why=why.get(_number(element), one.why))
            if one.state is State.FAILED
            else one
            for element, one in statuses.items()
        }

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:  # noqa: ARG002  all of mine
        return ("qstat", "-u", _me(), "-r", "-xml")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        from xml.etree import ElementTree

        self.refuse(done)
        statuses: dict[str, JobStatus] = {}
        for job in ElementTree.fromstring(done.stdout).iter("job_list"):
            number, native = job.findtext("JB_job_number", ""), job.findtext("state", "")
            waits = any("predecessor_jobs" in fact.tag for fact in job)
            state = _state(native, waits)
            if state is not None:
                held = "Dependency" if waits else "JobHeldUser"  # as Slurm has it
                status = JobStatus(state, native, held if "h" in native else "")
                statuses.update(dict.fromkeys(spread(number, job.findtext("tasks", "")), status))
        return statuses

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        return _only(jobs, super().account(jobs, since))

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        numbers = {_number(job) for job in jobs}
        if len(numbers) == 1:
            return ("qacct", "-j", numbers.pop())
        start = time.strftime("%Y%m%d%H%M", time.localtime(since - 3600))
        return ("qacct", "-o", _me(), "-b", start, "-j")

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        if done.status and "not found" in done.stderr:
            return {}
        self.refuse(done)
        return read_records(done.stdout)

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qdel", *jobs)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if not tokens:
            return {}
        numbers = {_number(element) for element in self.read_poll(self._mine())}
        if not numbers:
            return {}
        found = self.read_find(self._run(("qstat", "-j", ",".join(sorted(numbers))), None))
        return {token: job for token, job in found.items() if token in tokens}

    def find_command(self) -> tuple[str, ...]:
        return self.poll_command(())

    def read_find(self, done: Done) -> Mapping[str, str]:
        if self.unreachable(done):
            self.refuse(done)
        found = _described(done.stdout, r"context:\s+(?:.*,)?hpcpipe=([^,\n]*)")
        return {token.strip(): job for job, token in found}

    def _mine(self) -> Done:
        return self._run(self.find_command(), None)

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}.{index}"


def _number(element: str) -> str:
    return element.partition(".")[0]


def _only(jobs: Collection[str], found: Mapping[str, T]) -> Mapping[str, T]:
    """Leave out what is of other jobs: both commands tell of more than they are asked for."""
    numbers = {_number(job) for job in jobs}
    return {element: one for element, one in found.items() if _number(element) in numbers}


def _me() -> str:
    from getpass import getuser

    return getuser()


def hold(after: Sequence[After]) -> tuple[str, ...]:
    """Spell dependencies: ``-hold_jid 7,8 -hold_jid_ad 9``."""
    whole = ",".join(one.job for one in after if one.kind == "all")
    each = ",".join(one.job for one in after if one.kind == "each")
    words = (("-hold_jid", whole), ("-hold_jid_ad", each))
    return tuple(word for option, jobs in words if jobs for word in (option, jobs))


def _state(native: str, waits: bool) -> State | None:
    """Read the letters of a state, or None where the job has ended; ``waits`` for another job."""
    letters = set(native)
    if "z" in letters:
        return None
    if not letters or letters - _KNOWN:
        return State.UNKNOWN
    if "E" in letters:
        return State.FAILED
    if "q" not in letters:
        return State.RUNNING
    return State.HELD if "h" in letters and not waits else State.QUEUED


def _described(text: str, pattern: str) -> Iterator[tuple[str, str]]:
    """Find, in what ``qstat -j`` says of jobs, the one line of each that has a pattern."""
    for part in re.split(r"^job_number:\s+", text, flags=re.M)[1:]:
        if match := re.search(rf"^{pattern}", part, re.M):
            yield part.split(maxsplit=1)[0], match[1]
