"""Flux.

Commands: ``flux submit``, ``flux bulksubmit``, ``flux jobs --json``, ``flux cancel``. Version seen:
flux-core 0.88. The tests have a stand-in for its commands, which keeps to golden samples of what it
printed.

Dependencies: ``--dependency=afterok:``, once for each job.

Site keys: ``[flux] options``, extra ``#flux:`` directives passed through whole.

Oddities worth knowing:

* There are no arrays: ``--cc`` submits a job for each element, with ids of their own. An array's id
  here is all of these, in the order of the indices, joined by commas. They are printed in no order:
  which is which stands in the jobs' names.
* ``flux submit`` reads no directives of a script. They are read here, and become options.
* Jobs are let go one by one. So what is to be held waits for the end of one *gate*, a job that is
  held itself, and all is let go when that is cancelled: it never needs a free core. A gate that
  nothing waits for is left by a client that was killed, and is cancelled after ten minutes.
* ``flux bulksubmit`` gives each copy a dependency of its own. Where all of a large array waits for
  all of another, one job that does nothing stands between them: a dependency for each pair would
  stop the whole instance.
* At its time limit a job gets SIGALRM, and what outlives that goes on for a while: scripts pass it
  on and wait.
* What waits for a failure ends as FAILED at once, by an exception of type ``dependency``; a job too
  big for the cluster by one of type ``alloc``.
* ``flux jobs`` does not answer for a job that it does not know: all of the user's are asked about.
* No memory is asked for, and a job itself keeps its limit of it (``limits.watch_memory``).
* Ids are printed as ``ƒ3peFj8b``, and in a locale without UTF-8, or with FLUX_F58_FORCE_ASCII, as
  ``f3peFj8b``, which is what they are here.
* A job starts in the folder it was submitted from, with the environment of the submitter.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import (
    CommandScheduler,
    Done,
    Run,
    directives,
    launch,
    printed,
    run_command,
)

Row = Mapping[str, Any]

_LIVE = {
    "DEPEND": State.QUEUED,
    "PRIORITY": State.QUEUED,
    "SCHED": State.QUEUED,
    "RUN": State.RUNNING,
    "CLEANUP": State.RUNNING,  # also while what was cancelled tidies up
}
_EXCEPTIONS = {"dependency": Reason.UPSTREAM, "alloc": Reason.NEVER, "timeout": Reason.TIME}
_RESULTS = {"COMPLETED": None, "CANCELED": Reason.CANCELLED, "TIMEOUT": Reason.TIME}
_GATE = "hpcpipe-gate"
_BARRIER = "hpcpipe-barrier"
_OF_A_TASK = ("--job-name=", "--cc=", "--ntasks=", "--cores-per-", "--gpus-per-", "--time-limit=")
_LATE = 600.0  # seconds after which no submit command of a killed client still arrives
_SIGNALS = range(129, 193)
_MOST = 1000  # ids in one question
_EMPTY: Row = {  # flux leaves out what is empty
    "name": "", "dependencies": (), "urgency": 16, "exception": {"occurred": False},
    "t_submit": float("inf"),
    "result": "", "returncode": 0, "waitstatus": None, "runtime": None, "nodelist": "",
}  # fmt: skip


class Flux(CommandScheduler):
    """Flux by its command line tool."""

    name: ClassVar[str] = "flux"
    capabilities: ClassVar[Capabilities] = Capabilities(sparse=False)
    unreachable_words: ClassVar[str] = (
        r"Unable to connect to Flux|broker socket|Connection (reset|refused)"
    )
    passing_words: ClassVar[str] = "has max number of jobs"

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        super().__init__(run, cancels)
        self._gate = ""  # of what this process submitted held

    def find_instance(self) -> str:
        # An instance of a job (`flux alloc`) has that job's id; the system's is the one on its
        # hosts; any other is known by the folder of its sockets, which nothing else has.
        told = self.ask(("flux", "lsattr", "-v"))
        self.answered(told)
        lines = (line.split(None, 1) for line in told.stdout.splitlines())
        facts = {words[0]: words[-1].strip() for words in lines if len(words) > 1}
        first = re.split(r"[,\[]", facts.get("hostlist", ""))[0]
        inside = facts.get("instance-level", "0") != "0"
        which = _plain(facts.get("jobid", "")) if inside else Path(facts.get("rundir", "")).name
        return f"{first}/{which}" if which else ""

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        shell, said = directives(script, "#flux:")
        opens = held and not self._gate
        if opens:
            self._gate = self._stand_between(_GATE, said, "--urgency=hold")
        copies = sum(_count(word) for word in said if word.startswith("--cc="))
        after = [*self._narrowed(after, said)] if copies > 1 else after
        name = "".join(word.removeprefix("--job-name=") for word in said if "--job-name=" in word)
        label = f"{name}:{token}#{{cc}}" if copies else f"{name}:{token}"
        words = self.submit_command(script, after, token=label, held=held)
        command: tuple[str, ...] = ("sh", "-c", launch(script, shell))
        if pairs := [one for one in after if one.kind == "each"]:
            said = tuple(word for word in said if not word.startswith("--cc="))
            words = tuple(word.replace("{cc}", "{0}") for word in words)
            own, command = self._own(pairs, copies, command)
            words = ("flux", "bulksubmit", *words[2:], *own)
        done = self.hand_over((*words[:2], *said, *words[2:], *command), script.parents[1])
        try:
            ids = self._accepted(done, copies or 1)
            return self._in_order(ids) if copies else ids[0]
        except SchedulerUnavailable as error:  # what was taken may wait for the gate
            raise SubmitUnclear(str(error)) from None
        except SchedulerError:
            if opens:
                self._close([self._gate])
            raise

    def _stand_between(self, name: str, said: Sequence[str], *words: str) -> str:
        """Submit a job that does nothing, by the options of those that wait for it."""
        there = [word for word in said if not word.startswith(_OF_A_TASK)]
        argv = ("flux", "submit", *there, f"--job-name={name}", "--time-limit=60s", *words, "true")
        return self.read_submit(self.hand_over(argv, Path()))

    def _narrowed(self, after: Sequence[After], said: Sequence[str]) -> Iterator[After]:
        """Have many copies wait for one job rather than each for all of an array."""
        for one in after:
            wide = one.kind == "all" and one.element is None and "," in one.job
            if not wide:
                yield one
                continue
            waits = [f"--dependency={one_of}" for one_of in self._dependencies(one)]
            yield one._replace(job=self._stand_between(_BARRIER, said, *waits))

    def _own(
        self, pairs: Sequence[After], copies: int, command: Sequence[str]
    ) -> tuple[Sequence[str], tuple[str, ...]]:
        """Return the options of copies with dependencies of their own, and the command that has
        their values: the indices, and for each of these the jobs to wait for."""
        options, values = ["--env=FLUX_JOB_CC={0}"], [":::", *map(str, range(copies))]
        for nth, one in enumerate(pairs, 1):
            ids = [self.element(one.job, index) for index in range(copies)]
            some = next(filter(None, ids))
            kind = "afterok" if one.well else "afterany"
            # One that has ended, and is not known any more: any other's end will do.
            waits = [f"{kind}:{job}" if job else f"afterany:{some}" for job in ids]
            options.append(f"--dependency={{{nth}}}")
            values += [":::+", *waits]
        return options, (*command, *values)

    def _accepted(self, done: Done, copies: int) -> Sequence[str]:
        """Read the ids of all copies. Where some were refused, the others are cancelled."""
        ids = _printed(done)
        if done.status > 0 and 0 < len(ids) < copies:
            self._run(("flux", "cancel", *ids), None)
            left = self.poll(ids).values()
            if all(one.native == "CLEANUP" for one in left):
                ids = []
        return self.prove(done, ids, copies)

    def _in_order(self, ids: Sequence[str]) -> str:
        """Put ids in the order of the indices, which only the jobs' own names tell."""
        by_index: dict[int, str] = {}
        for at in range(0, len(ids), _MOST):
            asked = self.ask(("flux", "jobs", "--json", *ids[at : at + _MOST]))
            for row in self.read(self._rows, asked):
                by_index[_named(row)[1]] = row["jobid"]
        if [*sorted(by_index)] != [*range(len(ids))]:
            raise SubmitUnclear(f"flux jobs does not know all of the {len(ids)} copies submitted")
        return ",".join(by_index[index] for index in range(len(ids)))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        del script  # its command line comes behind
        words = ["flux", "submit", f"--job-name={token}"]
        if held:
            words.append(f"--dependency=afterany:{self._gate}")
        whole = (one for one in after if one.kind == "all")
        words += [f"--dependency={said}" for one in whole for said in self._dependencies(one)]
        return tuple(words)

    def _dependencies(self, one: After) -> Iterator[str]:
        kind = "afterok" if one.well else "afterany"
        ids = self.element(one.job, one.element).split(",")
        return (f"{kind}:{job}" for job in ids if job)

    def read_submit(self, done: Done) -> str:
        return self.prove(done, _printed(done))[0]  # of what does nothing

    def release(self, jobs: Sequence[str]) -> None:
        if not jobs:
            return
        for gate in [self._gate] if self._gate else self._gates(jobs):
            done = self._run(self.release_command([gate]), None)
            if not re.search("is inactive", done.stderr):
                self.refuse(done)
        self._gate = ""

    def _gates(self, jobs: Sequence[str]) -> Collection[str]:
        """Find what keeps jobs held that another process submitted."""
        rows = self.read(self._rows, self.ask(self.poll_command(jobs)))
        wanted = {_plain(one) for job in jobs for one in job.split(",")}
        closed = _closed(rows)
        found = (closed & _waits(row) for row in rows if row["jobid"] in wanted)
        return dict.fromkeys(gate for gates in found for gate in gates)

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("flux", "cancel", *jobs)

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return _only(super().poll(jobs), jobs)

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        del jobs
        return ("flux", "jobs", "--json", "-c", "0")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        rows = self._rows(done)
        closed = _closed(rows)
        return {row["jobid"]: _status(row, closed) for row in rows if row["state"] != "INACTIVE"}

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:
        return _only(super().account(jobs, since), jobs)

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del jobs, since
        return ("flux", "jobs", "--json", "-f", "inactive", "-c", "0")

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        return {row["jobid"]: _end(row) for row in self._rows(done) if row["state"] == "INACTIVE"}

    def _rows(self, done: Done) -> Sequence[Row]:
        self.answered(done)
        told = json.loads(done.stdout)
        rows = told.get("jobs", [told])  # one that is asked for comes alone
        return [{**_EMPTY, **row, "jobid": _plain(row["jobid"])} for row in rows]

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        # The last ones first, or the end of one would let another start; the gate last of all.
        ids = [one for job in reversed(jobs) for one in job.split(",") if one]
        return ("flux", "cancel", *ids)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs, and then the gates that nothing else waits for."""
        wanted = {_plain(one) for job in jobs for one in job.split(",") if one}
        if not wanted:
            return
        rows = self.read(self._rows, self.ask(self.poll_command(jobs)))
        closed, mine, others = _closed(rows), set[str](), set[str]()
        for row in rows:
            (mine if row["jobid"] in wanted else others).update(closed & _waits(row))
        super().cancel([job for job in jobs if job])
        self._close((mine | _stray(rows)) - others)

    def _close(self, gates: Collection[str]) -> None:
        if gates:
            self.read_cancel(self._run(self.cancel_command([*gates]), None))
        if self._gate in gates:
            self._gate = ""

    def find_command(self) -> tuple[str, ...]:
        return ("flux", "jobs", "--json", "-c", "0")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found: dict[str, dict[int, str]] = {}
        for row in self._rows(done):
            token, index = _named(row)
            if token and row["state"] != "INACTIVE":
                found.setdefault(token, {})[index] = row["jobid"]
        return {  # an element that has ended has no id here, and keeps its place
            token: ",".join(ids.get(index, "") for index in range(max(ids) + 1))
            for token, ids in found.items()
        }

    def element(self, job: str, index: int | None) -> str:
        ids = _plain(job).split(",")
        if index is None:
            return _plain(job)
        return ids[index] if index < len(ids) else ""


def _printed(done: Done) -> Sequence[str]:
    """Read the ids that ``flux submit`` printed, one a line, in no order."""
    lines = printed(done, r"(?m)^[ \t]*([ƒf][1-9A-HJ-NP-Za-km-z]+)[ \t\r]*$")
    return [*dict.fromkeys(map(_plain, lines))]


def _count(option: str) -> int:
    """Count the copies of ``--cc=0-9``."""
    return len(parse_indices(option.removeprefix("--cc=")))


def _named(row: Row) -> tuple[str, int]:
    """Read a job's token and index from its name; one of somebody else's has no token."""
    match = re.fullmatch(r".*:(.*?)(?:#(\d+))?", row["name"], re.S)
    return (match[1], int(match[2] or 0)) if match else ("", 0)


def _plain(job: str) -> str:
    """Return ids as a locale without UTF-8 has them: one spelling, whatever the shell."""
    return job.replace("ƒ", "f")


def _only(found: Mapping[str, Any], jobs: Collection[str]) -> Mapping[str, Any]:
    """Leave out what was not asked about."""
    wanted = {_plain(one) for job in jobs for one in job.split(",")}
    return {job: said for job, said in found.items() if job in wanted}


def _waits(row: Row) -> set[str]:
    """Return the jobs that one waits for: in ``after-success=ƒ4R5F3j5``, what follows the sign."""
    return {_plain(one.rpartition("=")[2]) for one in row["dependencies"]}


def _closed(rows: Sequence[Row]) -> set[str]:
    """Find the gates that are closed."""
    return {row["jobid"] for row in rows if row["name"] == _GATE and row["urgency"] == 0}


def _stray(rows: Sequence[Row]) -> set[str]:
    """Find the gates that nothing waits for, and that no command still to arrive will."""
    waited = {gate for row in rows for gate in _waits(row)}
    late = time.time() - _LATE
    return {row["jobid"] for row in rows if row["jobid"] in _closed(rows) - waited
            and row["t_submit"] < late}  # fmt: skip


def _status(row: Row, closed: set[str]) -> JobStatus:
    native, why = row["state"], "Dependency" if row["dependencies"] else ""  # as Slurm has it
    state = _LIVE.get(native, State.UNKNOWN)
    if state is State.QUEUED and (row["urgency"] == 0 or closed & _waits(row)):
        state, why = State.HELD, "JobHeldUser"
    return JobStatus(state, native, why)


def _end(row: Row) -> JobEnd:
    result, code, said = row["result"], row["returncode"], row["exception"]
    ran = row["waitstatus"] is not None
    signal = code - 128 if ran and code in _SIGNALS else -code if ran and code < 0 else None
    reason = _RESULTS.get(result, Reason.SIGNAL if signal else Reason.EXIT)
    note = str(said.get("note", "")) if said["occurred"] else ""
    if reason is not None and said["occurred"]:
        reason = _EXCEPTIONS.get(said.get("type", ""), reason)
        reason = Reason.NODE if note.startswith("node failure") else reason
    return JobEnd(
        native=f"{result}: {note}" if note else result,
        reason=reason,
        exit_code=code if ran and signal is None else None,
        signal=signal,
        wall=row["runtime"],
        host=row["nodelist"],
    )
