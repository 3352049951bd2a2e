"""LSF (IBM Spectrum LSF, Platform LSF).

Commands: ``bsub``, ``bresume``, ``bjobs -o … -json`` (10.1.0.2 and later), ``bkill``. Written from
the documentation of 10.1, and tried on a stand-in that was written from it too. Not tried on a real
one, and there were no samples of what one prints.

Dependencies: ``-w 'done(7[*])'`` for elements, ``done(7)`` for an array, ``done(7[3])`` for one.

Site keys: ``[lsf] options``, extra ``#BSUB`` directives passed through whole; ``account``, the
option that names the account (``"-P "``, or ``"-G "``); ``memory_per_slot``, whether the cluster
reserves memory for each slot and not for the job (``RESOURCE_RESERVE_PER_TASK``).

Oddities worth knowing:

* ``bsub`` reads ``#BSUB`` lines of its standard input only. They are read here, and become options.
* Elements pair by the name of the other array: ``done("name[*]")``. So a job's name is its batch's,
  which no other has.
* What waits for a failure is ended by ``-ti``; else it pends for ever, and its reason for pending
  says that the condition is "never satisfied".
* A dependency on a job that LSF has forgotten is refused. It forgets ``CLEAN_PERIOD`` seconds, an
  hour by default, after a job's end; how a job ended is not known afterwards.
* Array indices begin at 1, and the greatest is MAX_JOB_ARRAY_SIZE (1000).
* Time limits are whole minutes, here rounded up.
* A report would be added to a job's output, so the script opens its log itself.
* A job starts in the folder it was submitted from, with the environment of the submitter.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerError
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

_FIELDS = "jobid jobindex stat exit_code exit_reason run_time max_mem exec_host pend_reason"
_LIVE = {
    "PEND": State.QUEUED,
    "WAIT": State.QUEUED,
    "PSUSP": State.HELD,
    "RUN": State.RUNNING,
    "USUSP": State.RUNNING,
    "SSUSP": State.RUNNING,
    "PROV": State.RUNNING,
}
_TERMINATED = {  # how exit_reason begins
    "TERM_RUNLIMIT": Reason.TIME,
    "TERM_DEADLINE": Reason.TIME,
    "TERM_CPULIMIT": Reason.TIME,
    "TERM_MEMLIMIT": Reason.MEMORY,
    "TERM_SWAP": Reason.MEMORY,
    "TERM_ORPHAN_SYSTEM": Reason.UPSTREAM,
    "TERM_OWNER": Reason.CANCELLED,
    "TERM_ADMIN": Reason.CANCELLED,
    "TERM_FORCE_OWNER": Reason.CANCELLED,
    "TERM_FORCE_ADMIN": Reason.CANCELLED,
    "TERM_PREEMPT": Reason.PREEMPTED,
    "TERM_ZOMBIE": Reason.NODE,
    "TERM_UNKNOWN": Reason.NODE,
}
_SIGNALS = range(129, 193)
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024, "b": 1 / 1024 / 1024}


class LSF(CommandScheduler):
    """LSF by its command line tools."""

    name: ClassVar[str] = "lsf"
    capabilities: ClassVar[Capabilities] = Capabilities(first_index=1, mail=True)
    unreachable_words: ClassVar[str] = (
        r"(?i)LSF is down|Cannot connect to LSF|daemon not responding|command not found"
    )

    def __init__(self, run: Run = run_command, cancels: int | None = None) -> None:
        super().__init__(run, cancels)
        self._names: dict[str, str] = {}  # by job

    def find_instance(self) -> str:
        # The configuration has one lsf.cluster.NAME for each cluster, mostly one.
        folder = os.environ.get("LSF_ENVDIR", "/etc")
        names = [path.suffix[1:] for path in Path(folder).glob("lsf.cluster.*")]
        if len(names) == 1:
            return names[0]
        told = self.ask(("lsid",))
        self.answered(told)
        match = re.search(r"(?m)^My cluster name is (\S+)", told.stdout)
        return match[1] if match else ""

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        shell, said = directives(script, "#BSUB")
        for one in after:
            if one.kind == "each" and one.job not in self._names:
                self._names[one.job] = self._ask_name(one.job)
        words = self.submit_command(script, after, token=token, held=held)
        command = (*words[:1], *said, *words[1:], launch(script, shell))
        job = self.read_submit(self.hand_over(command, script.parents[1]))
        if "-J" in said:
            name = said[said.index("-J") + 1]
            self._names[job] = name.partition("[")[0]
        return job

    def _ask_name(self, job: str) -> str:
        asked = self.ask(("bjobs", "-a", "-o", "jobid jobindex job_name", "-json", job))
        for row in self.read(lambda answer: [*_rows(self, answer)], asked):
            return row["JOB_NAME"].partition("[")[0]
        raise SchedulerError(f"{asked.words}\n(LSF does not know job {job} any more)")

    def submit_command(
        self, script: Path, after: Sequence[After], *, token: str, held: bool
    ) -> tuple[str, ...]:
        del script  # its command line comes behind
        words = ["bsub", "-Jd", f"hpcpipe:{token}"]
        if held:
            words.append("-H")
        if after:
            words += ["-w", " && ".join(map(self._condition, after)), "-ti"]
        return tuple(words)

    def _condition(self, one: After) -> str:
        if one.kind == "each":
            return f'done("{self._names[one.job]}[*]")'
        element = one.job if one.element is None else f"{one.job}[{one.element}]"
        return f"{'done' if one.well else 'ended'}({element})"

    def read_submit(self, done: Done) -> str:
        return self.prove(done, printed(done, r"Job <(\d+)> is submitted"))[0]

    def release_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("bresume", *jobs)

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        return ("bjobs", "-a", "-o", _FIELDS, "-json", *_whole(jobs))

    def read_poll(self, done: Done) -> Mapping[str, JobStatus]:
        return {
            _element(row): _status(row)
            for row in _rows(self, done)
            if row["STAT"] not in ("DONE", "EXIT")
        }

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del since
        return self.poll_command(jobs)

    def read_account(self, done: Done) -> Mapping[str, JobEnd | JobStatus]:
        return {
            _element(row): _end(row) if row["STAT"] in ("DONE", "EXIT") else _status(row)
            for row in _rows(self, done)
        }

    def cancel_command(self, jobs: Sequence[str]) -> tuple[str, ...]:
        return ("bkill", *reversed(jobs))  # the last first, or the end of one lets another start

    def find_command(self) -> tuple[str, ...]:
        return ("bjobs", "-o", "jobid jobindex job_description", "-json")

    def read_find(self, done: Done) -> Mapping[str, str]:
        return {
            row["JOB_DESCRIPTION"].removeprefix("hpcpipe:"): row["JOBID"]
            for row in _rows(self, done)
            if row["JOB_DESCRIPTION"].startswith("hpcpipe:")
        }

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}[{index}]"


def _whole(jobs: Collection[str]) -> Iterable[str]:
    """Return the jobs that these jobs and elements belong to, each once."""
    return dict.fromkeys(job.partition("[")[0] for job in jobs)


def _rows(lsf: LSF, done: Done) -> Iterator[Mapping[str, str]]:
    """Read the output of ``bjobs``; jobs that it does not know are left out."""
    unknown = re.search(r"(?i)is not found|No (matching |unfinished )?job", done.stderr)
    if not unknown and not done.stdout.startswith("{"):
        lsf.answered(done)
    records = json.loads(done.stdout.strip() or "{}", strict=False).get("RECORDS", [])
    return (row for row in records if "ERROR" not in row)


def _element(row: Mapping[str, str]) -> str:
    index = row["JOBINDEX"]
    return row["JOBID"] if index in ("", "0", "-") else f"{row['JOBID']}[{index}]"


def _status(row: Mapping[str, str]) -> JobStatus:
    native, why = row["STAT"], row.get("PEND_REASON", "").rstrip("; ")
    state = _LIVE.get(native, State.UNKNOWN)
    if state is State.QUEUED and "never satisfied" in why:
        state = State.BLOCKED
    return JobStatus(state, native, "" if why == "-" else why)


def _end(row: Mapping[str, str]) -> JobEnd:
    code = int(row["EXIT_CODE"]) if row["EXIT_CODE"].isdigit() else 0
    said = row["EXIT_REASON"]
    reason = None
    if row["STAT"] == "EXIT":
        reason = _TERMINATED.get(said.partition(":")[0].strip())
        reason = reason or (Reason.SIGNAL if code in _SIGNALS else Reason.EXIT)
    wall = re.match(r"(\d+) second", row["RUN_TIME"])
    memory = re.match(r"([\d.]+) ?([KMGTb])", row["MAX_MEM"])
    return JobEnd(
        native=said if said not in ("", "-") else row["STAT"],
        reason=reason,
        exit_code=None if code in _SIGNALS else code,
        signal=code - 128 if code in _SIGNALS else None,
        max_memory=round(float(memory[1]) * _UNITS[memory[2]]) if memory else None,
        wall=float(wall[1]) if wall else None,
        host=row["EXEC_HOST"].strip("-").rpartition("*")[2].partition(":")[0],
    )
