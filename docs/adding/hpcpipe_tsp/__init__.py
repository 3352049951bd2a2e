"""Task spooler, the queue of one machine.

Commands: ``tsp`` with ``-B -L -D``, ``-l``, ``-r``, ``-k``, ``-S``, ``-w``. Tried on a real 1.0.1.

Site keys: none. ``TS_SOCKET`` in the environment says which queue, and ``tsp -S`` how many jobs run
at once.

Oddities worth knowing:

* There are no arrays. Of several ``-D`` the last one counts. So a job is kept by its last upstream
  alone, and, once it has a slot, waits there for the others by ``tsp -w``. They cannot all wait for
  ever: jobs start in the order of submission, if nobody puts one forward by ``tsp -u``.
* Numbers begin at 0 again with each new server, after a boot or ``tsp -K``. A job's id here is
  therefore its number and the token in its label: ``7:t9f86d081884c7d65``.
* What was skipped, since its upstream failed, is listed so. A queued job that is removed is not
  listed any more. A signal that ended a job is listed as -1.
* ``tsp -C`` forgets ended jobs; what is then submitted to come after one is skipped.
* Each job takes one slot, whatever its cpus: one of several (``-N``) could be kept out for ever by
  those that wait for it. Time and memory are nobody's business.
* A job starts in the folder it was submitted from, with the environment of the submitter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.base import CommandScheduler, Done, printed

_STATES = {"queued": State.QUEUED, "running": State.RUNNING}
_ENDED = ("finished", "skipped")
# 7   finished   /tmp/ts-out.hrcemx 3        0.50/0.00/0.00 [6]&& [first-1:t9f86d08]sh -c ...
_ROW = re.compile(
    r"^(?P<number>\d+) +(?P<word>\w+) .*?"
    r"(?: (?P<level>-?\d+) +(?P<wall>[\d.]+)/[\d.]+/[\d.]+ +)?"
    r"(?:\[\d+\]&& )?\[[^]]*:(?P<token>[^]:]+)\]",
    re.M,
)
_WAIT = 'script=$0 token=$1; shift; for job; do tsp -w "$job"; done; exec sh "$script" "$token"'


class Tsp(CommandScheduler):
    """Task spooler by its one command."""

    name: ClassVar[str] = "tsp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        arrays=False, elementwise=False, element_dependency=False, success=False, hold=False
    )
    unreachable_words: ClassVar[str] = "server didn't come up"

    def find_instance(self) -> str:
        socket = os.environ.get("TS_SOCKET") or f"socket-ts.{os.getuid()}"
        return f"{os.uname().nodename}:{socket}"

    def passing(self, done: Done) -> bool:
        return done.status == 2  # -B: the queue is full

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        del held  # never asked of a scheduler that says hold=False
        words = ["tsp", "-B", "-L", f"{script.stem}:{token}"]
        numbers = [_number(one.job) for one in after]
        if after and after[-1].well:
            words += ["-D", numbers.pop()]
        path = f"{script.parent.name}/{script.name}"
        return (*words, "sh", "-c", _WAIT, path, token, *numbers)

    def read_submit(self, done: Done) -> str:
        number = self.prove(done, printed(done, r"(?m)^\d+$"))[0]
        return f"{number}:{done.argv[3].rpartition(':')[2]}"

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        del jobs  # nothing is ever held
        return ("tsp", "-S")

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        wanted = set(jobs)
        return {job: said for job, said in super().poll(jobs).items() if job in wanted}

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        del jobs  # all are listed
        return ("tsp", "-l")

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        rows = [(job, row["word"]) for job, row in self._rows(done)]
        live = [(job, word) for job, word in rows if word not in _ENDED]
        return {job: JobStatus(_STATES.get(word, State.UNKNOWN), word) for job, word in live}

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        wanted = set(jobs)
        return {job: end for job, end in super().account(jobs, since).items() if job in wanted}

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del jobs, since
        return ("tsp", "-l")

    def read_account(self, done: Done) -> Mapping[str, JobEnd]:
        return {job: _end(row) for job, row in self._rows(done) if row["word"] in _ENDED}

    def _rows(self, done: Done) -> Iterator[tuple[str, re.Match[str]]]:
        self.refuse(done)
        return ((f"{row['number']}:{row['token']}", row) for row in _ROW.finditer(done.stdout))

    def cancel(self, jobs: Sequence[str]) -> None:
        # Both take one job. The last ones first, or the end of one would let another start.
        for job in reversed([*self.poll(jobs)]):
            removed = self._run(self.cancel_command([job]), None)
            if removed.status:  # it runs
                self.read_cancel(self._run(("tsp", "-k", _number(job)), None))

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("tsp", "-r", *map(_number, jobs))

    def find_command(self) -> tuple[str, ...]:
        return ("tsp", "-l")

    def read_find(self, done: Done) -> Mapping[str, str]:
        return {job.partition(":")[2]: job for job in self.read_poll(done)}

    def element(self, job: str, index: int | None) -> str:
        del index
        return job


def _number(job: str) -> str:
    return job.partition(":")[0]


def _end(row: re.Match[str]) -> JobEnd:
    code = int(row["level"] or 0)
    reason = Reason.UPSTREAM if row["word"] == "skipped" else None
    if code:
        reason = Reason.SIGNAL if code < 0 else Reason.EXIT
    known = row["level"] and code >= 0
    return JobEnd(
        native=row["word"],
        reason=reason,
        exit_code=code if known else None,
        wall=float(row["wall"] or 0),
        host=os.uname().nodename,
    )
