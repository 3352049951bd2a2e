"""Flux.

Commands: ``flux submit``, ``flux job urgency``, ``flux jobs --json``, ``flux cancel``. Written
against flux-core 0.88: golden samples of what it printed, and a stand-in for its commands that
keeps to them. Not tried on a real one.

Site keys: ``[flux] options``, extra ``#flux:`` directives passed through whole.

Oddities worth knowing:

* There are no arrays: ``--cc`` submits a job for each element, with ids of their own. An array's id
  here is all of these, in the order of the indices, joined by commas.
* ``flux submit`` reads no directives of a script. They are read here, and become options.
* Jobs are let go one by one. So what is to be held waits for one *gate*, a job that does nothing
  and is held itself, and all is let go with that.
* What waits for a failure ends as FAILED at once, by an exception of type ``dependency``; a job too
  big for the cluster by one of type ``alloc``.
* ``flux jobs`` does not answer for a job that it does not know: all of the user's are asked about.
* No memory is asked for, and a job itself keeps its limit of it (``limits.watch_memory``).
* Ids are printed as ``ƒ3peFj8b``, and by a job in a locale without UTF-8 as ``f3peFj8b``.
* A job starts in the folder it was submitted from, with the environment of the submitter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.model import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import CommandScheduler, Done, Run, directives, run_command

Row = Mapping[str, Any]

_LIVE = {
    "DEPEND": State.QUEUED,
    "PRIORITY": State.QUEUED,
    "SCHED": State.QUEUED,
    "RUN": State.RUNNING,
    "CLEANUP": State.RUNNING,
}
_EXCEPTIONS = {"dependency": Reason.UPSTREAM, "alloc": Reason.REFUSED, "timeout": Reason.TIME}
_RESULTS = {"COMPLETED": None, "CANCELED": Reason.CANCELLED, "TIMEOUT": Reason.TIME}
_GATE = "hpcpipe-gate"
_SIGNALS = range(129, 193)


class Flux(CommandScheduler):
    """Flux by its command line tool."""

    name: ClassVar[str] = "flux"
    capabilities: ClassVar[Capabilities] = Capabilities(elementwise=False, sparse=False)
    unreachable_words: ClassVar[str] = (
        r"Unable to connect to Flux|broker socket|Connection (reset|refused)"
    )

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        super().__init__(run, cancels)
        self._gate = ""  # of what this process submitted held

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        if held and not self._gate:
            gate = ("--urgency=hold", f"--job-name={_GATE}", "--time-limit=60s", "true")
            self._gate = self.read_submit(self._run(("flux", "submit", *gate), None))
        shell, said = directives(script, "#flux:")
        name = "".join(word.removeprefix("--job-name=") for word in said if "--job-name=" in word)
        words = self.submit_command(script, after, token=f"{name}:{token}", held=held)
        path = f"{script.parent.name}/{script.name}"
        command = (*words[:2], *said, *words[2:], *shell, path)
        return self.read_submit(self._run(command, script.parents[1]))

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        del script  # its command line comes behind
        words = ["flux", "submit", f"--job-name={token}"]
        if held:
            words.append(f"--dependency=afterany:{self._gate}")
        for one in after:
            kind = "afterok" if one.well else "afterany"
            ids = self.element(one.job, one.element).split(",")
            words += [f"--dependency={kind}:{job}" for job in ids]
        return tuple(words)

    def read_submit(self, done: Done) -> str:
        self.refuse(done)
        ids = done.stdout.split()
        if not ids or not all(re.fullmatch(r"[ƒf][1-9A-HJ-NP-Za-km-z]+", one) for one in ids):
            raise SchedulerError(f"{done.words}\n(flux submit gave no job id)")
        return ",".join(ids)

    def release(self, jobs: Sequence[str]) -> None:
        if not jobs:
            return
        for gate in [self._gate] if self._gate else self._gates(jobs):
            self.refuse(self._run(self.release_command([gate]), None))
        self._gate = ""

    def _gates(self, jobs: Sequence[str]) -> Collection[str]:
        """Find what keeps jobs held that another process submitted."""
        rows = self._rows(self._run(self.poll_command(jobs), None))
        wanted = set(",".join(jobs).split(","))
        closed = _closed(rows)
        found = (closed & _waits(row) for row in rows if row["jobid"] in wanted)
        return dict.fromkeys(gate for gates in found for gate in gates)

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("flux", "job", "urgency", *jobs, "16")

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
        self.refuse(done)
        try:
            rows: Sequence[Row] = json.loads(done.stdout or '{"jobs": []}')["jobs"]
        except (ValueError, KeyError) as error:
            raise SchedulerUnavailable(f"{done.words}\n(flux gave no JSON: {error})") from None
        return rows

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        # The last ones first, or the end of one would let another start; the gate last of all.
        ids = [one for job in reversed(jobs) for one in job.split(",")]
        gate, self._gate = self._gate, ""
        return ("flux", "cancel", *ids, *([gate] if gate else []))

    def find_command(self) -> tuple[str, ...]:
        return ("flux", "jobs", "--json", "-c", "0")

    def read_find(self, done: Done) -> Mapping[str, str]:
        found: dict[str, list[str]] = {}
        for row in sorted(self._rows(done), key=lambda row: row["id"]):
            _, colon, token = row["name"].rpartition(":")
            if colon:
                found.setdefault(token, []).append(row["jobid"])
        return {token: ",".join(ids) for token, ids in found.items()}

    def element(self, job: str, index: int | None) -> str:
        ids = job.split(",")
        return ids[index] if index is not None and index < len(ids) else job


def _only(found: Mapping[str, Any], jobs: Collection[str]) -> Mapping[str, Any]:
    """Leave out what was not asked about."""
    wanted = {one for job in jobs for one in job.split(",")}
    return {job: said for job, said in found.items() if job in wanted}


def _waits(row: Row) -> set[str]:
    """Give the jobs that one waits for: of ``after-success=ƒ4R5F3j5`` what is behind the sign."""
    return {one.rpartition("=")[2] for one in row["dependencies"]}


def _closed(rows: Sequence[Row]) -> set[str]:
    """Find the gates that are closed."""
    return {row["jobid"] for row in rows if row["name"] == _GATE and row["urgency"] == 0}


def _status(row: Row, closed: set[str]) -> JobStatus:
    native, why = row["state"], " ".join(row["dependencies"])
    state = _LIVE.get(native, State.UNKNOWN)
    if state is State.QUEUED and (row["urgency"] == 0 or closed & _waits(row)):
        state = State.HELD
    return JobStatus(state, native, why)


def _end(row: Row) -> JobEnd:
    result, code, said = row["result"], row["returncode"], row["exception"]
    ran = row.get("waitstatus") is not None
    signal = code - 128 if ran and code in _SIGNALS else None
    reason = _RESULTS.get(result, Reason.SIGNAL if signal else Reason.EXIT)
    if reason is not None and said["occurred"]:
        reason = _EXCEPTIONS.get(said["type"], reason)
    note = said["note"] if said["occurred"] else ""
    return JobEnd(
        native=f"{result}: {note}" if note else result,
        reason=reason,
        exit_code=code if ran and signal is None else None,
        signal=signal,
        wall=row.get("runtime"),
        host=row.get("nodelist") or "",
    )
