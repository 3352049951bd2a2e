"""OAR.

Commands: ``oarsub``, ``oarresume``, ``oarstat``, ``oardel``. Tried on a real OAR 2.5.9 with
PostgreSQL, in the tests.

Site keys: ``[oar] options``, extra ``#OAR`` directives passed through whole, and ``core``, the
property that a cpu is counted in.

Every element of an array is a job of its own here. A job's id in hpcpipe is therefore all of its
ids, folded: ``7`` or ``8-107``; those that OAR gave to somebody else meanwhile are left out, as in
``8-30,32-108``. An element's id is OAR's own.

Oddities worth knowing:

* ``-a ID`` waits for the end of a job, however it ended: a task whose upstream failed starts, finds
  that out by itself, and ends with exit code 86. There is no dependency element by element.
* An array that is to start after one job alone does not wait at all: 2.5.9 forgets its ``-a``. If
  it may choose among resources OAR remembers it, so the same ones are then named twice.
* The names of folders reach a Perl script unquoted, those with an apostrophe break it. So every
  job is launched in ``/``, and goes to its run folder itself; and the ``#OAR`` lines are read here,
  as OAR would read them, for its ``--scanscript`` knows no blanks in a path.
* No environment is passed on. Exit codes are wait statuses. What is killed is killed at once.
* A time limit is looked at every ten seconds or so. Memory is not asked for: it comes with the
  cores, so ask for more of them. Limited it is only where the site has cgroups; elsewhere each job
  keeps its own limit (``limits.watch_memory``). GPUs come with their cores.
* OAR starts a dozen programs for each element, and keeps a row for each pair of elements where one
  array waits for another: pack what is short (``pack=``).
* A job that could not be started because its node did not answer is begun anew by OAR under another
  id; what is told of that one is told of the first.
* A dependency on a job that never was waits for ever.
* While its database is away, OAR's commands wait for it for ever and, running as another user, let
  nobody end them: ``oarstat``, which does not wait, is asked before each of the others. While only
  the server is away, jobs are taken, and started when it is back.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import CommandScheduler, Done
from hpcpipe.schedulers.folded import among, fold, nth, unfold

_STATES = {
    "Waiting": State.QUEUED,
    "toAckReservation": State.QUEUED,
    "Hold": State.HELD,
    "toLaunch": State.RUNNING,
    "Launching": State.RUNNING,
    "Running": State.RUNNING,
    "Suspended": State.RUNNING,
    "Resuming": State.RUNNING,
    "Finishing": State.RUNNING,
    "toError": State.RUNNING,
}
_ENDED = ("Terminated", "Error")
_OVER = "state IN ('Terminated', 'Error')"
_EVENTS = {"WALLTIME": Reason.TIME, "FRAG_JOB_REQUEST": Reason.CANCELLED}  # the first that is there
_NO_SERVER = 9  # oarsub: the job is in the database, but the server could not be told


class Oar(CommandScheduler):
    """OAR by its command line tools."""

    name: ClassVar[str] = "oar"
    capabilities: ClassVar[Capabilities] = Capabilities(
        elementwise=False, sparse=False, success=False, first_index=1
    )
    unreachable_words: ClassVar[str] = r"(?i)DB connection error|Cannot connect to|refused"

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        self._knock()
        return super().submit(script, after, token=token, held=held)

    def release(self, jobs: Sequence[str]) -> None:
        if jobs:
            self._knock()
            super().release(jobs)

    def cancel(self, jobs: Sequence[str]) -> None:
        if jobs:
            self._knock()
            super().cancel(jobs)

    def _knock(self) -> None:
        """Ask something that costs nothing, of the one command that does not wait for an answer."""
        self.refuse(self._run(("oarstat", "-J", "--sql", "job_id = 0"), None))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        words = ["oarsub", "-d", "/", *_directives(script)]
        if held:
            words.append("--hold")
        before = [one for each in after for one in self._ids(each)]
        for one in before:
            words += ("-a", one)
        if len(before) == 1 and {"--array", "-l"} <= {*words}:
            at = words.index("-l")
            words += words[at : at + 2]
        folder = shlex.quote(str(script.parent.parent.absolute()))
        # The script does not look at its argument, but `find` does.
        run = shlex.join(("sh", f"{script.parent.name}/{script.name}", f"hpcpipe:{token}"))
        return (*words, f"cd {folder} && exec {run}")

    def read_submit(self, done: Done) -> str:
        ids = [int(one) for one in re.findall(r"^OAR_JOB_ID=(\d+)$", done.stdout, re.M)]
        if done.status != _NO_SERVER or not ids:
            self.refuse(done)
        if not ids:
            raise SchedulerError(f"{done.words}\n(oarsub gave no job id)")
        return fold(ids)

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("oarresume", "--sql", f"state = 'Hold' AND ({among(jobs)})")

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        return ("oarstat", "-J", "--sql", f"(NOT {_OVER} AND ({among(jobs)})) OR {_again(jobs)}")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        statuses = {}
        for element, job in self._rows(done).items():
            if (native := str(job["state"])) not in _ENDED:
                state = _STATES.get(native, State.UNKNOWN)
                statuses[element] = JobStatus(state, native, str(job["message"] or ""))
        return statuses

    def account_command(
        self,
        jobs: Collection[str],
        since: float,  # noqa: ARG002  ids are never used twice
    ) -> tuple[str, ...]:
        return ("oarstat", "-fJ", "--sql", f"({_OVER} AND ({among(jobs)})) OR {_again(jobs)}")

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        rows = self._rows(done)
        return {one: _end(job) for one, job in rows.items() if job["state"] in _ENDED}

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("oardel", "--sql", f"NOT {_OVER} AND ({among(jobs)} OR {_again(jobs)})")

    def find_command(self) -> tuple[str, ...]:
        from getpass import getuser

        mine = f"job_user = '{getuser()}' AND command LIKE '%hpcpipe:%'"
        return ("oarstat", "-J", "--sql", f"NOT {_OVER} AND {mine}")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found: dict[str, list[int]] = {}
        for element, job in self._rows(done).items():
            word = shlex.split(str(job["command"]))[-1]
            if word.startswith("hpcpipe:"):
                found.setdefault(word.removeprefix("hpcpipe:"), []).append(int(element))
        return {token: fold(sorted(ids)) for token, ids in found.items()}

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else str(nth(job, index - 1))

    def _ids(self, after: After) -> Iterable[str]:
        if after.element is not None:
            return (self.element(after.job, after.element),)
        return map(str, unfold(after.job))

    def _rows(self, done: Done) -> Mapping[str, Mapping[str, Any]]:
        """Read jobs by id; one begun anew stands under the id that it had first."""
        self.refuse(done)
        # No row is no JSON either.
        rows: dict[str, Mapping[str, Any]] = json.loads(done.stdout or "{}")
        by_id = {}
        for job in sorted(rows, key=int):  # the latest counts
            first = job
            while (before := str(rows[first]["resubmit_job_id"])) in rows:
                first = before
            by_id[before if before != "0" else first] = rows[job]
        return by_id


def _directives(script: Path) -> Iterable[str]:
    """Read the options at the head of a script, the rest of a line being the value."""
    for line in script.read_text("utf-8", "surrogateescape").splitlines():
        if line.startswith("#OAR "):
            yield from line.removeprefix("#OAR ").strip().split(None, 1)
        elif line and not line.startswith("#"):
            return


def _again(jobs: Collection[str]) -> str:
    """Spell "was begun anew, as was one of these or its like" in SQL."""
    arrays = f"SELECT array_id FROM jobs WHERE {among(jobs)}"
    return f"(resubmit_job_id > 0 AND array_id IN ({arrays}))"


def _end(job: Mapping[str, Any]) -> JobEnd:
    """Read how a job ended: by its wait status, or else by what befell it."""
    events = [event["type"] for event in job["events"]]
    native, reason, code, signal = str(job["state"]), None, None, None
    if job["exit_code"] is not None:
        signal = int(job["exit_code"]) & 127 or None
        code = None if signal else int(job["exit_code"]) >> 8
        reason = Reason.SIGNAL if signal else Reason.EXIT if code else None
    else:
        reason = next((why for word, why in _EVENTS.items() if word in events), Reason.NODE)
        word = next((one for one in events if not one.startswith("SWITCH_INTO")), "")
        native = f"{native}: {word or job['message']}"
    began, ended = int(job["startTime"]), int(job["stopTime"])
    return JobEnd(
        native=native,
        reason=reason,
        exit_code=code,
        signal=signal,
        wall=float(ended - began) if began else 0.0,
        host=",".join(job["assigned_network_address"]),
    )
