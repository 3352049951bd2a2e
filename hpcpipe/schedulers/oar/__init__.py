"""OAR.

Commands: ``oarsub``, ``oarresume``, ``oarstat``, ``oardel``. Tried on a real OAR 2.5.9 with
PostgreSQL, in the tests.

Dependencies: ``-a``, for every job of an array.

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
* Exit codes are wait statuses. What is killed is killed at once.
* A time limit is looked at every ten seconds or so. Memory is not asked for: it comes with the
  cores, so ask for more of them. Limited it is only where the site has cgroups; elsewhere each job
  keeps its own limit (``limits.watch_memory``). GPUs come with their cores.
* OAR starts a dozen programs for each element, and keeps a row for each pair of elements where one
  array waits for another: pack what is short (``pack=``).
* A job that could not be started because its node did not answer is begun anew by OAR under another
  id; what is known of that one is reported for the first.
* A dependency on a job that never was waits for ever.
* It knows no user's address: mail without one goes to the user's name, by the site's SMTP server.
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
from typing import Any, ClassVar, TypeVar

from hpcpipe.indices import fold
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import CommandScheduler, Done, launch, printed
from hpcpipe.schedulers.oar.id_ranges import among, nth, unfold

_HELD = "held by hand, or by an interrupted submission; to release it"
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
T = TypeVar("T")
_ENDED = ("Terminated", "Error")
_OVER = "state IN ('Terminated', 'Error')"
_EVENTS = {"WALLTIME": Reason.TIME, "FRAG_JOB_REQUEST": Reason.CANCELLED}  # the first that is there
_NO_SERVER = 9  # oarsub: the job is in the database, but the server could not be told


class Oar(CommandScheduler):
    """OAR by its command line tools."""

    name: ClassVar[str] = "oar"
    capabilities: ClassVar[Capabilities] = Capabilities(
        elementwise=False, sparse=False, success=False, first_index=1, mail=True
    )
    unreachable_words: ClassVar[str] = r"(?i)DB connection error|Cannot connect to|refused"

    def find_instance(self) -> str:
        # Its configuration may be read by OAR alone, and often says "localhost". So a cluster is
        # known by its first resource, which has one address wherever one asks.
        which = "resource_id IN (SELECT MIN(resource_id) FROM resources)"
        told = self.ask(("oarnodes", "-J", "--sql", which))
        self.answered(told)
        match = re.search(r'"network_address" : "([^"]+)"', told.stdout)
        return match[1].lower() if match else ""

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        self._knock()
        return super().submit(script, after, token=token, held=held)

    def release(self, jobs: Sequence[str]) -> None:
        if jobs:
            self._knock()
            super().release(jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return _only(super().poll(jobs), jobs)

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        return _only(super().account(jobs, since), jobs)

    def cancel(self, jobs: Sequence[str]) -> None:
        if not jobs:
            return
        # One that was begun anew has another id now, which no neighbour of it shall share.
        rows = self.read(self._rows, self.ask(self.poll_command(jobs)))
        live = {one: row for one, row in rows.items() if row["state"] not in _ENDED}
        if now := sorted(int(row["Job_Id"]) for row in _only(live, jobs).values()):
            super().cancel([fold(now)])

    def _knock(self) -> None:
        """Ask something that costs nothing, of the one command that does not wait for an answer."""
        self.answered(self._run(("oarstat", "-J", "--sql", "job_id = 0"), None))

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
        # Nothing looks at the last word, but `find` does.
        run = shlex.join(("sh", "-c", launch(script, ("sh",)), f"hpcpipe:{token}"))
        return (*words, f"cd {folder} && exec {run}")

    def read_submit(self, done: Done) -> str:
        words = [*done.argv]
        elements = int(words[words.index("--array") + 1]) if "--array" in words else 1
        ids = printed(done, r"(?m)^[ \t]*OAR_JOB_ID=(\d+)[ \t\r]*$")
        if done.status == _NO_SERVER and ids:
            done = done._replace(status=0)
        # Ids grow with the indices.
        return fold(sorted(map(int, self.prove(done, ids, elements))))

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("oarresume", "--sql", f"state = 'Hold' AND ({among(jobs)})")

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        return ("oarstat", "-J", "--sql", f"(NOT {_OVER} AND ({among(jobs)})) OR {_again(jobs)}")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        statuses = {}
        for element, job in self._rows(done).items():
            if (native := str(job["state"])) not in _ENDED:
                state = _STATES.get(native, State.UNKNOWN)
                # Of one that is held, OAR's message has what it requests.
                why = f"{_HELD}: oarresume {element}" if state is State.HELD else job["message"]
                statuses[element] = JobStatus(state, native, str(why or ""))
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
        return ("oardel", "--sql", f"NOT {_OVER} AND ({among(jobs)})")

    def find_command(self) -> tuple[str, ...]:
        from getpass import getuser

        mine = f"job_user = '{getuser()}' AND command LIKE '%hpcpipe:%'"
        # Whole arrays: of some, elements have ended.
        live = f"SELECT array_id FROM jobs WHERE NOT {_OVER} AND {mine}"
        return ("oarstat", "-J", "--sql", f"{mine} AND array_id IN ({live})")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found: dict[str, dict[int, int]] = {}
        for element, job in self._rows(done).items():
            word = shlex.split(str(job["command"]))[-1]
            if word.startswith("hpcpipe:"):
                ids = found.setdefault(word.removeprefix("hpcpipe:"), {})
                ids[int(job["array_index"])] = int(element)
        # An element's place is its index; 0 is the id of one that OAR has forgotten.
        return {
            token: fold(ids.get(index, 0) for index in range(1, max(ids) + 1))
            for token, ids in found.items()
        }

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else str(nth(job, index - 1))

    def _ids(self, after: After) -> Iterable[str]:
        if after.element is not None:
            return (self.element(after.job, after.element),)
        return map(str, unfold(after.job))

    def _rows(self, done: Done) -> Mapping[str, Mapping[str, Any]]:
        """Read jobs by id; one begun anew stands under the id that it had first."""
        self.answered(done)
        # No row is no JSON either.
        rows: dict[str, Mapping[str, Any]] = json.loads(done.stdout.strip() or "{}")
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


def _only(found: Mapping[str, T], jobs: Collection[str]) -> Mapping[str, T]:
    """Leave out the elements of these arrays that were not asked about."""
    wanted = {str(one) for job in jobs for one in unfold(job)}
    return {element: said for element, said in found.items() if element in wanted}


def _again(jobs: Collection[str]) -> str:
    """Return "is a later start of one of these, or of its siblings" in SQL."""
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
