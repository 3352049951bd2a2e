"""PBS Professional and OpenPBS.

Commands: ``qsub``, ``qrls``, ``qstat -f`` (with ``-x`` for what has ended), ``qdel``, ``qselect``.
Versions seen: OpenPBS 23.06.06, its release and a later snapshot. The tests have a stand-in for its
commands, which keeps to golden samples of what they printed.

Dependencies: ``-W depend=afterok:``, and ``afterany:`` after an array.

Site keys: ``[pbs] options``, extra ``#PBS`` directives passed through whole, and ``account``, the
option that names the account: ``"-A "``, on some clusters ``"-P "`` or ``"-W group_list="``.

Oddities worth knowing:

* ``afterok`` on an array follows the element that ends last, whatever the others did. So arrays are
  waited for with ``afterany``, and each job checks by itself whether its upstreams succeeded.
* There are no elementwise dependencies, none on a single element, and no arrays of one element.
* A job whose predecessor failed is deleted: it is F, with no Exit_status.
* A dependency on a job that the server has forgotten deletes the dependent without a word. It
  forgets at once where ``job_history_enable`` is false, which is the default; how a job ended that
  left no outcome is not known there.
* A job too big for the cluster is accepted. It stays Q, and its comment says "Can Never Run".
* An element of an array that is held is Q, and has the array's own start and Exit_status: these
  mean something in a row that is F or X only. An element that never ran has the array's for good;
  its row has no ``array_index``.
* Exit_status is 128 and the signal that ended the job's shell, 256 and a signal where the host's
  daemon sent it, or negative: -29 for the time, -27 and -26 for the memory.
* Standard output would appear after a job's end only, so the script opens its log itself.
* ``qsub`` cannot always send a working folder whose path has quotes or commas. So it runs in the
  root folder, and the job finds the run's own in ``$HPCPIPE_FOLDER``, where all but the plainest
  characters are ``%`` and three octal digits.
* ``qdel`` of several ids, of which one has no record (an element that waits, a job that has ended),
  crashes the server of 23.06.06, or deletes only some: it is given one at a time. Its exit status
  is 0 even then, so the queue is asked afterwards.
* Arrays may always be started again by PBS itself, after their node failed.
* ``-F json`` is invalid where a name is ``nan`` or ``.5`` or a variable holds some signs, and after
  23.06.06 leaves out all jobs but the first (openpbs issues 2541, 1255, 2672). Every version prints
  text well.
* Output is copied to the host that submitted, by scp, even to ``/dev/null`` there, unless the site
  says ``$usecp``; not to that of ``localhost`` (``src/resmom/stage_func.c``).
* By default it sends mail about aborted jobs. Scripts have ``-m n``; later ``options`` win.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, State
from hpcpipe.schedulers.base import CommandScheduler, Done, printed, setting
from hpcpipe.schedulers.pbs import qstat

_SUBMITTED = r"(?m)^[ \t]*(\d+(?:\[\])?(?:\.[\w.-]+)?)[ \t\r]*$"
_TOKEN = "HPCPIPE_TOKEN"
_DELETIONS = 2  # of what is still there after the first; a crash of the server may lose that


class PBS(CommandScheduler):
    """PBS Professional and OpenPBS by their command line tools."""

    name: ClassVar[str] = "pbs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        elementwise=False,
        element_dependency=False,
        sparse=False,
        array_of_one=False,
        success=False,
        mail=True,
    )
    unreachable_words: ClassVar[str] = (
        r"(?i)cannot connect to server|could(n't| not) connect"
        r"|Connection refused|Connection timed out"
        r"|Communication failure|Premature end of message|End of File|command not found"
        r"|Server shutting down|No free connections|connection table full|Batch protocol error"
    )
    # A limit of jobs, or of what all that is queued asks for (``src/lib/Liblog/pbs_messages.c``).
    passing_words: ClassVar[str] = r"Maximum number of jobs|would exceed .*limit|temporarily"
    over: ClassVar[str] = "FX"  # the states of what has ended

    def find_instance(self) -> str:
        # As its own commands do; with a secondary server PBS_PRIMARY is the same for both.
        file = os.environ.get("PBS_CONF_FILE", "/etc/pbs.conf")
        names = ("PBS_PRIMARY", "PBS_SERVER")
        found = (os.environ.get(name) or setting(name, file) for name in names)
        return next(filter(None, found), "").lower() or self.ask_instance()

    def ask_instance(self) -> str:
        """Ask the server itself for its name."""
        told = self.ask(("qstat", "-B", "-f"))
        self.answered(told)
        match = re.search(r"(?m)^Server: (\S+)", told.stdout)
        return match[1].lower() if match else ""

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        words = self.submit_command(script, after, token=token, held=held)
        return self.read_submit(self.hand_over(words, Path("/")))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        folder = _plain(os.fsencode(script.parent.parent.absolute()))
        words = ["qsub", "-v", f"{_TOKEN}={token},HPCPIPE_FOLDER={folder}"]
        if held:
            words.append("-h")
        if after:
            words += ["-W", f"depend={self.dependency(after)}"]
        return (*words, str(script.absolute()))

    def dependency(self, after: Sequence[After]) -> str:
        """Return the dependencies' option: ``afterok:7.srv:9.srv,afterany:8[].srv``."""
        kinds: dict[str, list[str]] = {}
        for one in after:
            kind = "afterok" if one.well and "[" not in one.job else "afterany"
            kinds.setdefault(kind, []).append(one.job)
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds.items())

    def read_submit(self, done: Done) -> str:
        return self.prove(done, printed(done, _SUBMITTED))[0]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qrls", *jobs)

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        # Without -x, which a server without history answers with a refusal, of live jobs too.
        return ("qstat", "-t", "-f", *self.whole(jobs))

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        return self._statuses(self.rows(done))

    def _statuses(self, rows: Iterable[tuple[str, qstat.Row]]) -> dict[str, JobStatus]:
        statuses = {}
        arrays: dict[str, JobStatus] = {}
        for job, row in rows:
            if row["job_state"] in self.over:
                continue
            status = qstat.status(row)
            if "[]" in job:
                arrays[job] = status
                continue
            above = arrays.get(_array(job), status)
            waits = status.state is State.QUEUED and above.native != qstat.BEGUN
            statuses[job] = above if waits else status
        return statuses

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del since
        return ("qstat", "-x", "-t", "-f", *self.whole(jobs))

    def read_account(self, done: Done) -> Mapping[str, JobEnd | JobStatus]:
        rows = [*self.rows(done)]
        over = [(job, row) for job, row in rows if row["job_state"] in self.over]
        ends = {job: qstat.end(row) for job, row in over if "[]" not in job}
        return {**self._statuses(rows), **ends}

    def rows(self, done: Done) -> Iterator[tuple[str, qstat.Row]]:
        """Read the output of ``qstat``, job by job; those it does not know are left out.

        Raises ValueError where it says nothing at all of a job that was asked about.
        """
        self.refuse_but_for_unknown(done)
        rows = qstat.read(done.stdout)
        told = {_number(word) for word in (*rows, *done.stderr.split())}
        asked = {_number(word) for word in done.argv if word[:1].isdigit()}
        if not asked <= told:
            raise ValueError(f"nothing of {', '.join(sorted(asked - told))}")
        yield from rows.items()

    def refuse_but_for_unknown(self, done: Done) -> None:
        """Raise if the command failed for another cause than jobs that are gone."""
        gone = r"\S+: (Unknown Job Id|.*Job has finished|PBS is not configured to maintain)"
        if not all(re.match(gone, line) for line in done.stderr.splitlines()):
            self.answered(done)

    def cancel(self, jobs: Sequence[str]) -> None:
        # The last ones first, or the end of one would let another start.
        for _ in range(_DELETIONS):
            said = {job: self._run(self.cancel_command([job]), None) for job in reversed(jobs)}
            for done in said.values():
                self.read_cancel(done)
            if not (jobs := self._undeleted(said)):
                return
        words = next((done.words for done in said.values() if done.status), "qdel said nothing")
        raise SchedulerError(f"{words}\nStill in the queue: {' '.join(jobs)}")

    def _undeleted(self, said: Mapping[str, Done]) -> Sequence[str]:
        """Look which jobs are there as if none had been deleted. What runs takes a while to end."""
        left = self.poll(said)
        ids = ((job, one) for element, one in left.items() for job in (element, _array(element)))
        stays = (
            job
            for job, one in ids
            if job in said and (one.state is not State.RUNNING or said[job].status)
        )
        return [*dict.fromkeys(stays)]

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qdel", *jobs)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        from getpass import getuser

        if not tokens:
            return {}
        mine = self.ask(("qselect", "-u", getuser()))
        self.answered(mine)
        if not (jobs := mine.stdout.split()):
            return {}
        found = self.read(self.read_find, self.ask((*self.find_command(), *jobs)))
        return {token: job for token, job in found.items() if token in tokens}

    def find_command(self) -> tuple[str, ...]:
        return ("qstat", "-f")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found = {}
        for job, row in self.rows(done):
            token = row.get("Variable_List", {}).get(_TOKEN)
            if token is not None and row["job_state"] not in self.over:
                found[str(token)] = job
        return found

    def whole(self, jobs: Collection[str]) -> Iterable[str]:
        """Return the jobs that these jobs and elements belong to, each once."""
        return dict.fromkeys(map(_array, jobs))

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else job.replace("[]", f"[{index}]")


def _plain(path: bytes) -> str:
    """Return a path in characters that have no special meaning."""
    return re.sub(rb"[^\w/.+-]", lambda odd: b"%%%03o" % ord(odd[0]), path).decode("ascii")


def _number(job: str) -> str:
    """Return an id without its server: ``7``, ``8[]``."""
    return job.partition(".")[0]


def _array(job: str) -> str:
    """Name the array that an element is of; a plain job is its own."""
    return re.sub(r"\[\d+\]", "[]", job)
