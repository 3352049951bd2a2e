"""Grid Engine: Son of Grid Engine, and what else descends from Sun's (Univa, Altair, OCS).

Commands: ``qsub -terse``, ``qrls``, ``qstat -xml`` (``qstat -j`` for the reason of an error, and
for tokens), ``qacct``, ``qdel``. Tried on a real Son of Grid Engine 8.1.9, in the tests; the output
of the others is read by name and unit, as far as it has both.

Dependencies: ``-hold_jid_ad`` for elements, ``-hold_jid`` for an array.

Site keys: ``[sge] options``, extra ``#$`` directives passed through whole; the names of the
parallel environment and of the resources to ask for; ``requeue``, as with Slurm.

Oddities worth knowing:

* ``-hold_jid`` waits for an end, not for success, and is satisfied by an unknown job. What an
  element needs it looks for itself, and ends with a code of ours if that is not there.
* ``-hold_jid_ad`` pairs arrays of the same range only, and no job can wait for one element.
* Arrays are ranges, from 1. Outside of one SGE_TASK_ID is the word ``undefined``.
* ``Eqw``: it could not be started (folder, log, shell); it stays so, and what waits for it waits.
* Exit codes 99 and 100 mean "start again" and "make it Eqw". No script of ours ends with either.
* The shebang counts for nothing: ``-S /bin/sh``. ``-l`` counts per slot if it is a consumable.
* ``$JOB_ID`` and the like are replaced in the name of a log, its folder included.
* A job that no queue could ever run would wait for ever: ``-w e`` refuses it. That goes by an empty
  cluster and knows no load values (``-l mem_free=1G``), nor why a parallel environment does not do:
  where ``-w v`` gives one of these for the reason, the job is submitted all the same.
* ``~/.sge_qstat`` and the cell's ``sge_qstat`` hold default options of every ``qstat``. Where one
  hides jobs whatever else is asked (``-q``, ``-g c``, …) nothing is concluded from the answer.
* ``~/.sge_request`` holds default options of every ``qsub``. ``-clear`` in a script drops them, and
  with them the cell's own, which ``-@`` reads again.
* ``qacct`` takes one id, or all of a user that were started since. A job that was deleted before it
  was started is in neither ``qstat`` nor ``qacct``; one that has ended is not for 15 s, by default.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, State
from hpcpipe.schedulers.base import CommandScheduler, Done, in_clean_environment, printed, setting
from hpcpipe.schedulers.sge.qacct import read_records, spread

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

T = TypeVar("T", bound=JobStatus | JobEnd)
# As with -terse, or without it where a site's own qsub drops that.
_SUBMITTED = (
    r"(?m)^[ \t]*(?:Your job(?:-array)? )?(\d+)(?:\.\d+-\d+:\d+)?"
    r"(?:[ \t\r]*| \(.* has been submitted\r?)$"
)
_HIDING = re.compile(r"(?<!\S)-(q|qs|l|pe|U|j|xml|help|g\s+c)(?!\S)")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_BY_HAND = "held by hand, or by an interrupted submission; to release it"
_AFTERWARDS = "held by hand; to release it"  # no submission of ours holds what waits for others
_BY_OTHERS = "held by an operator of the cluster, who alone can release it"
_KNOWN = set("hqwrtRsSTNPdE")  # the letters of a state
_NO_QUEUE = "no suitable queues"
_NOT_JUDGED = r"unknown resource \(|cannot run in PE"
_REASONS = 3  # lines of them: on a large cluster there is one for each host


class Sge(CommandScheduler):
    """Grid Engine by its command line tools."""

    name: ClassVar[str] = "sge"
    capabilities: ClassVar[Capabilities] = Capabilities(
        element_dependency=False, sparse=False, subset=False, success=False, first_index=1,
        mail=True, no_path=r"\n|\$(HOME|USER|JOB_ID|JOB_NAME|HOSTNAME|TASK_ID)",
    )  # fmt: skip
    unreachable_words: ClassVar[str] = (
        r"(?i)unable to (send message|contact|connect)|commlib|got (send|select) error"
        r"|read qmaster name|cell directory|set the environment variable SGE_ROOT|timeout"
    )
    passing_words: ClassVar[str] = r"only \d+ jobs are allowed per (user|cluster)"

    def find_instance(self) -> str:
        common = cell_folder()
        try:
            master = (common / "act_qmaster").read_text("utf-8", "replace")
        except OSError as error:
            raise SchedulerUnavailable(
                f"{error.filename}: {error.strerror}; is this a login node of the cluster?"
            ) from None
        return f"{common.parent.name}@{master.strip().lower()}" if master.strip() else ""

    def unreachable(self, done: Done) -> bool:
        return super().unreachable(done._replace(stderr=done.stderr + done.stdout))

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        words = self.submit_command(script, after, token=token, held=held)
        try:
            return self._submit("e", words, script)
        except SubmitUnclear:
            raise
        except SchedulerError as refusal:
            if _NO_QUEUE not in str(refusal):
                raise
            if reasons := self._reasons(words, script):
                raise SchedulerError(f"{reasons}\n{refusal}") from None
        return self._submit("n", words, script)

    def _submit(self, level: str, words: Sequence[str], script: Path) -> str:
        checked = (words[0], "-w", level, *words[1:])
        return self.read_submit(self.hand_over(checked, script.parent.parent))

    def _reasons(self, words: Sequence[str], script: Path) -> str:
        """Ask why no queue could run a job; empty where it may be able to run all the same."""
        checked = in_clean_environment((words[0], "-w", "v", *words[1:]))
        said = self._run(checked, script.parent.parent).words
        if _NO_QUEUE not in said or re.search(_NOT_JUDGED, said):
            return ""
        lines = re.findall(r"Job \d+ .*cannot run .*", said)
        return "\n".join([one for one in lines if "hard queue list" not in one][:_REASONS])

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        flags = self.flags(after, token=token, held=held)
        return ("qsub", "-terse", *flags, f"{script.parent.name}/{script.name}")

    def flags(self, after: Sequence[After], *, token: str, held: bool) -> tuple[str, ...]:
        """Return the options that are known at submission only."""
        return ("-ac", f"hpcpipe={token}", *(("-h",) if held else ()), *hold(after))

    def read_submit(self, done: Done) -> str:
        # A site's checks (JSV) and wrappers may have lines of their own.
        return self.prove(done, printed(done, _SUBMITTED))[0]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qrls", *jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        if jobs:
            _look_for_defaults()
        statuses = self._say_by_whom(_only(jobs, super().poll(jobs)))
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

    def _say_by_whom(self, statuses: Mapping[str, JobStatus]) -> Mapping[str, JobStatus]:
        """Distinguish holds of the user, who can release them, from those of an operator.

        That is a question of its own, which is worth it only where a job is held for longer than
        what it waited for.
        """
        if not any(one.why.startswith(_AFTERWARDS) for one in statuses.values()):
            return statuses
        own = self.read(self.read_poll, self.ask((*_list("hu"), "-xml")))
        return {
            element: one._replace(why=_BY_OTHERS)
            if one.state is State.HELD and element not in own
            else one
            for element, one in statuses.items()
        }

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:  # noqa: ARG002  all of mine
        return (*_list("a"), "-r", "-xml")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        self.answered(done)
        statuses: dict[str, JobStatus] = {}
        for job in self._listed(done):
            number, native = job.findtext("JB_job_number", ""), job.findtext("state", "")
            # Those that have not ended; ``predecessor_jobs_req`` has all that were asked for.
            waits = any(fact.tag.endswith("predecessor_jobs") for fact in job)
            state = _state(native, waits)
            if state is not None:
                waited = any(fact.tag.endswith("predecessor_jobs_req") for fact in job)
                by_hand = f"{_AFTERWARDS if waited else _BY_HAND}: qrls {number}"
                held = "Dependency" if waits else by_hand  # as Slurm has it
                status = JobStatus(state, native, held if "h" in native else "")
                statuses.update(dict.fromkeys(spread(number, job.findtext("tasks", "")), status))
        return statuses

    def _listed(self, done: Done) -> Iterable[Element]:
        """Read the jobs that qstat lists, without what others print around its XML."""
        from xml.etree import ElementTree

        found = re.search(r"<job_info.*</job_info>", done.stdout, re.S)
        root = ElementTree.fromstring(_NO_XML.sub("?", found[0])) if found else None
        if root is None or root.find("queue_info") is None:
            raise self.unread(done, "it is no whole list of jobs")
        return root.iter("job_list")

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        return _only(jobs, super().account(jobs, since))

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        numbers = {_number(job) for job in jobs}
        if len(numbers) == 1:
            return ("qacct", "-j", numbers.pop())
        start = time.strftime("%Y%m%d%H%M", time.localtime(since - 3600))
        return ("qacct", "-o", _me(), "-b", start, "-j")

    def read_account(self, done: Done) -> Mapping[str, JobEnd | JobStatus]:
        if done.status and re.search("not found|accounting: No such file", done.stderr):
            return {}  # no job has ended yet, or this host does not see the accounting
        self.answered(done)
        self.uncut(done)
        return read_records(done.stdout)

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qdel", *jobs)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if not tokens:
            return {}
        _look_for_defaults()
        numbers = self._numbers()
        if not numbers:
            return {}
        described = self.ask(("qstat", "-j", ",".join(sorted(numbers))))
        found = self.read_find(described)
        missing = numbers - {*re.findall(r"^job_number:\s+(\d+)", described.stdout, re.M)}
        # One that has ended meanwhile is left out in silence where others are described.
        if missing and (missing := missing & self._numbers()):
            raise self.unread(described, f"nothing of {', '.join(sorted(missing))}")
        return {token: job for token, job in found.items() if token in tokens}

    def find_command(self) -> tuple[str, ...]:
        return self.poll_command(())

    def read_find(self, done: Done) -> Mapping[str, str]:
        if self.unreachable(done):
            self.answered(done)
        found = _described(done.stdout, r"context:\s+(?:.*,)?hpcpipe=([^,\n]*)")
        return {token.strip(): job for job, token in found}

    def _numbers(self) -> set[str]:
        """Ask for the numbers of all of the user's jobs in the queue."""
        listed = self.ask(self.find_command())
        return {_number(element) for element in self.read(self.read_poll, listed)}

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}.{index}"


def _number(element: str) -> str:
    return element.partition(".")[0]


def _only(jobs: Collection[str], found: Mapping[str, T]) -> Mapping[str, T]:
    """Leave out other jobs: both commands report more than they are asked for."""
    numbers = {_number(job) for job in jobs}
    return {element: one for element, one in found.items() if _number(element) in numbers}


def cell_folder() -> Path:
    """Name the folder of a cell's files, as its commands find it, and Debian's wrapper of them."""
    debian = "/etc/default/gridengine"
    root = os.environ.get("SGE_ROOT") or setting("SGE_ROOT", debian) or "/var/lib/gridengine"
    cell = os.environ.get("SGE_CELL") or setting("SGE_CELL", debian) or "default"
    return Path(root, cell, "common")


def _look_for_defaults() -> None:
    """Raise SchedulerUnavailable where qstat has default options that hide jobs.

    Options on the command line override ``-s`` and ``-u``; nothing overrides these.
    """
    from pwd import getpwuid

    home = getpwuid(os.getuid()).pw_dir  # qstat looks there, wherever $HOME is
    for file in (Path(home, ".sge_qstat"), cell_folder() / "sge_qstat"):
        try:
            hides = _HIDING.search(file.read_text("utf-8", "replace"))
        except OSError:
            continue
        if hides:
            raise SchedulerUnavailable(
                f"{file} says {hides[0]}, which hides jobs from every qstat: "
                "could not read which jobs there are. Remove it from that file."
            )


def _list(which: str) -> tuple[str, ...]:
    return ("qstat", "-u", _me(), "-s", which)


def _me() -> str:
    from getpass import getuser

    return getuser()


def hold(after: Sequence[After]) -> tuple[str, ...]:
    """Return the dependencies' options: ``-hold_jid 7,8 -hold_jid_ad 9``."""
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
    """Find the one line of each job that matches a pattern, in the output of ``qstat -j``."""
    for part in re.split(r"^job_number:\s+", text, flags=re.M)[1:]:
        if match := re.search(rf"^{pattern}", part, re.M):
            yield part.split(maxsplit=1)[0], match[1]
