"""PBS Professional and OpenPBS.

Commands: ``qsub``, ``qrls``, ``qstat -f -F json`` (with ``-x`` for what has ended), ``qdel``,
``qselect``. Written against OpenPBS 23.06.06: golden samples of what it printed, a stand-in for
its commands that keeps to them, and its source. Not tried on a real one.

Site keys: ``[pbs] options``, extra ``#PBS`` directives passed through whole, and ``account``, the
option that names the account: ``"-A "``, on some clusters ``"-P "`` or ``"-W group_list="``.

Oddities worth knowing:

* ``afterok`` on an array follows the element that ends last, whatever the others did. So arrays are
  waited for with ``afterany``, and each job looks for itself whether its upstreams are good.
* There are no elementwise dependencies, none on a single element, and no arrays of one element.
* A job whose predecessor failed is deleted: it is F, with no Exit_status.
* A dependency on a job that the server has forgotten deletes the dependent without a word. It
  forgets at once where ``job_history_enable`` is false, which is the default; how a job ended that
  left no outcome is not known there.
* A job too big for the cluster is accepted. It stays Q, and its comment says "Can Never Run".
* An element of an array that is held is Q, and has the array's own start and Exit_status: these
  mean something in a row that is F or X only.
* Exit_status is 256 and a signal, or negative: -29 for the time, -27 and -26 for the memory.
* Standard output would appear after a job's end only, so the script opens its log itself.
* ``qsub`` cannot always send a working folder whose path has quotes or commas. So it runs in the
  root folder, and the job finds the run's own in ``$HPCPIPE_FOLDER``, where all but the plainest
  characters are ``%`` and three octal digits.
* Arrays may always be started again by PBS itself, after their node failed.
* The JSON of 19.1 is none where a variable holds some signs or ``007``, and the one after 23.06.06
  leaves out all jobs but the first (openpbs issues 2541, 1255, 2672). Then the same is asked again
  as text.
* Output is copied to the host that submitted, by scp, even to ``/dev/null`` there, unless the site
  says ``$usecp``; not to that of ``localhost`` (``src/resmom/stage_func.c``).
* It mails what it aborts, if not told otherwise. Scripts say ``-m n``; later ``options`` win.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, State
from hpcpipe.schedulers import qstat
from hpcpipe.schedulers.base import CommandScheduler, Done

_TOKEN = "HPCPIPE_TOKEN"


class PBS(CommandScheduler):
    """PBS Professional and OpenPBS by their command line tools."""

    name: ClassVar[str] = "pbs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        elementwise=False,
        element_dependency=False,
        sparse=False,
        array_of_one=False,
        success=False,
    )
    unreachable_words: ClassVar[str] = (
        r"(?i)cannot connect to server|could not connect|Connection refused|Connection timed out"
        r"|Communication failure|Premature end of message|End of File|command not found"
        r"|Server shutting down|No free connections|connection table full|Batch protocol error"
    )
    # A limit of jobs, or of what all that is queued asks for (``src/lib/Liblog/pbs_messages.c``).
    passing_words: ClassVar[str] = r"Maximum number of jobs|would exceed .*limit|temporarily"
    over: ClassVar[str] = "FX"  # the states of what has ended

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        words = self.submit_command(script, after, token=token, held=held)
        return self.read_submit(self._run(words, Path("/")))

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
        """Spell dependencies: ``afterok:7.srv:9.srv,afterany:8[].srv``."""
        kinds: dict[str, list[str]] = {}
        for one in after:
            kind = "afterok" if one.well and "[" not in one.job else "afterany"
            kinds.setdefault(kind, []).append(one.job)
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds.items())

    def read_submit(self, done: Done) -> str:
        self.refuse(done)
        lines = done.stdout.split()
        if not lines or not re.fullmatch(r"\d+(\[\])?(\.[\w.-]+)?", lines[-1]):
            raise SchedulerError(f"{done.words}\n(qsub gave no job id)")
        return lines[-1]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("qrls", *jobs)

    def ask(self, words: Sequence[str]) -> Done:
        done = super().ask(words)
        if "json" not in words or qstat.is_whole(done.stdout, done.stderr, words):
            return done
        return super().ask(tuple(word for word in words if word not in ("-F", "json")))

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        # Without -x, which a server without history answers with a refusal, of live jobs too.
        return ("qstat", "-t", "-f", "-F", "json", *self.whole(jobs))

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        statuses = {}
        arrays: dict[str, JobStatus] = {}
        for job, row in self.rows(done):
            if row["job_state"] in self.over:
                continue
            status = qstat.status(row)
            if "[]" in job:
                arrays[job] = status
                continue
            above = arrays.get(_array(job), status)
            waits = status.state is State.QUEUED and above.state in (State.HELD, State.BLOCKED)
            statuses[job] = above if waits else status
        return statuses

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del since
        return ("qstat", "-x", "-t", "-f", "-F", "json", *self.whole(jobs))

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        return {
            job: qstat.end(row)
            for job, row in self.rows(done)
            if row["job_state"] in self.over and "[]" not in job
        }

    def rows(self, done: Done) -> Iterator[tuple[str, qstat.Row]]:
        """Read what ``qstat`` says, job by job; those it does not know are left out."""
        self.refuse_but_for_unknown(done)
        try:
            yield from qstat.read(done.stdout).items()
        except ValueError as error:
            raise SchedulerUnavailable(f"{done.words}\n(qstat gave no JSON: {error})") from None

    def refuse_but_for_unknown(self, done: Done) -> None:
        """Raise if the command failed for another cause than jobs that are gone."""
        gone = r"\S+: (Unknown Job Id|.*Job has finished|PBS is not configured to maintain)"
        if not all(re.match(gone, line) for line in done.stderr.splitlines()):
            self.refuse(done)

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        # The last ones first, or the end of one would let another start.
        return ("qdel", *reversed(jobs))

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        from getpass import getuser

        if not tokens:
            return {}
        mine = self.ask(("qselect", "-u", getuser()))
        self.refuse(mine)
        if not (jobs := mine.stdout.split()):
            return {}
        found = self.read_find(self.ask((*self.find_command(), *jobs)))
        return {token: job for token, job in found.items() if token in tokens}

    def find_command(self) -> tuple[str, ...]:
        return ("qstat", "-f", "-F", "json")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found = {}
        for job, row in self.rows(done):
            token = row.get("Variable_List", {}).get(_TOKEN)
            if token is not None and row["job_state"] not in self.over:
                found[str(token)] = job
        return found

    def whole(self, jobs: Collection[str]) -> Iterable[str]:
        """Give the jobs that these jobs and elements belong to, each once."""
        return dict.fromkeys(map(_array, jobs))

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else job.replace("[]", f"[{index}]")


def _plain(path: bytes) -> str:
    """Spell a path in characters that mean nothing to anybody."""
    return re.sub(rb"[^\w/.+-]", lambda odd: b"%%%03o" % ord(odd[0]), path).decode("ascii")


def _array(job: str) -> str:
    """Name the array that an element is of; a plain job is its own."""
    return re.sub(r"\[\d+\]", "[]", job)
