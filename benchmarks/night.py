"""A night with nobody logged in: what goes wrong, and how soon it is retried.

Three steps for a tenth of ``--size`` subjects. Of these, 5 % run out of memory, 3 % out of time,
and 5 % are requeued as by preemption; the continuation is killed twice. An administrator may set
two nodes down meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import measure
from measure import HPCPIPE, Row, use
from slots import seconds

from hpcpipe.run import Run
from hpcpipe.status.instances import Instances
from hpcpipe.store.ledger import History, Ledger
from hpcpipe.store.record import read_record

STUDY = str(Path(__file__).with_name("subjects.py"))
STEPS = ("first", "second", "third")
KILLS = 2  # of the continuation
SOON = 30  # seconds until the next attempt is queued
IS_SLURM = "slurm" in measure.SITE


def rows(size: int, rounds: int) -> Iterator[Row | str]:
    """Run one night, and check in the morning that all is as it should be."""
    del rounds
    if IS_SLURM and (missing := measure.slurm_missing()):
        yield f"night.py runs nothing, as no Slurm answers: {missing}"
        return
    subjects = size // 10
    with measure.scratch() as folder:
        env = {"SUBJECTS": str(subjects), "HPCPIPE_SITE": measure.SITE}
        use(HPCPIPE, "submit", STUDY, cwd=folder, env=env)
        night = Night(folder)
        night.pass_by()
        yield from night.wrong(subjects)
        yield from night.figures(subjects)


class Night:
    """The run, what is done to it, and what it looks like in the morning."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = Run(folder / "runs" / "night")
        self.began = time.time()
        self.requeued: set[str] = set()
        self.killed: set[str] = set()

    @property
    def history(self) -> History:
        """What was submitted."""
        return Ledger(self.run.rundir.ledger).read()

    @property
    def ran(self) -> list[list[str]]:
        """What the tasks noted: task, begin or end, time, element."""
        file = self.folder / "ran"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def live(self) -> set[str]:
        """Return the elements of the run that are in the queue, continuations included."""
        history = self.history
        jobs: dict[str, list[str]] = {}
        for one in history.submissions.values():
            if one.job and not (one.continued or (one.continues and one.cancelled)):
                jobs.setdefault(one.instance, []).append(one.job)
        instances = Instances(history)
        return {job for where, some in jobs.items() for job in instances.reach(where).poll(some)}

    def pass_by(self) -> None:
        """Disturb the run until nothing of it is in the queue any more."""
        give_up = time.monotonic() + measure.PATIENCE
        while self.live() or self.live():  # the first look may miss what was just submitted
            if time.monotonic() > give_up:
                raise TimeoutError(f"the night has not ended after {measure.PATIENCE} s")
            self.preempt()
            self.kill()
            time.sleep(3)

    def preempt(self) -> None:
        """Requeue the third step of every twentieth subject once, while it runs."""
        for name, word, _, element in self.ran:
            step, _, subject = name.partition("/")
            chosen = step == "third" and int(subject) % 20 == 11 and word == "begin"
            if IS_SLURM and chosen and name not in self.requeued:
                self.requeued.add(name)
                allow = ["scontrol", "update", f"JobId={element}", "Requeue=1"]
                subprocess.run(allow, check=False)
                subprocess.run(["scontrol", "requeue", element], check=False)

    def kill(self) -> None:
        """Kill a continuation that runs or waits, as often as it is to be."""
        history = self.history
        for one in history.continuations():
            if len(self.killed) < KILLS and one.batch not in self.killed and not one.stands_in_for:
                self.killed.add(one.batch)
                Instances(history).reach(one.instance).cancel([one.job or ""])
                return

    def wrong(self, subjects: int) -> Iterator[str]:
        """Yield what is not as it should be."""
        for step, more in zip(STEPS, (0, 0, 1), strict=True):
            if self.run.results(step) != {str(n): n + more for n in range(subjects)}:
                yield f"WRONG: the results of {step}"
        done = Counter(name for name, word, *_ in self.ran if word == "end")
        if done != {f"{step}/{n}": 1 for step in STEPS for n in range(subjects)}:
            twice = [name for name, count in done.items() if count > 1]
            yield f"WRONG: {len(done)} tasks have succeeded, more than once: {twice}"
        status = json.loads(use(HPCPIPE, "status", "--json", "--run", self.run.rundir.folder).said)
        begun = Counter(name for name, word, *_ in self.ran if word == "begin")
        untold = {
            name: count
            for name, count in begun.items()
            if count > 1 + len(status["retried"].get(name, ())) + (name in self.requeued)
        }
        if untold:  # the scheduler has requeued them by itself, as where a node went down
            yield f"began more often than status tells: {untold}"

    def figures(self, subjects: int) -> Iterator[Row | str]:
        """Yield what was measured."""
        what = f"night of {subjects} subjects, 3 steps"
        yield measure.amount(f"{what}: wall", time.time() - self.began, "s")
        record = self.run.record
        reasons = Counter(
            str(end[1])
            for node in record.attempts.values()
            for some in node.values()
            for end in some
        )
        yield f"retried: {dict(reasons)}; requeued {len(self.requeued)}, killed {len(self.killed)}"
        if IS_SLURM:
            delays = sorted(self.delays())
            if delays:
                goal = f"{what}: from a failure until its next attempt is queued, median"
                yield measure.amount(goal, median(delays), "s", SOON)
                yield measure.amount(f"{what}: the same, longest", delays[-1], "s")
            yield measure.amount(f"{what}: slots held by continuations", self.held(), "s")

    def delays(self) -> Iterator[float]:
        """Yield the seconds from the end of each attempt until the next one was submitted."""
        history = self.history
        queued: dict[str, list[float]] = {}
        for run in history.runs:
            for batch in read_record(self.run.rundir, run["run"]).batches.values():
                for _, key, _ in batch.tasks():
                    queued.setdefault(key, []).append(history.submissions[batch.id].time)
        elements = [
            (key, end)
            for node in self.run.record.attempts.values()
            for key, some in node.items()
            for end in some
        ]
        ended = ends({str(end[3]) for _, end in elements})
        for key, end in elements:
            if at := ended.get(str(end[3])):
                yield min((time for time in queued[key] if time >= at), default=at) - at

    def held(self) -> float:
        """Return the seconds that continuations ran, all together."""
        told = subprocess.run(
            ["sacct", "-nPX", "--name=continue.night", "-o", "ElapsedRaw", "-S",
             time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.began))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(sum(map(int, told.stdout.split())))


def ends(elements: set[str]) -> dict[str, float]:
    """Ask Slurm's accounting when elements ended."""
    if not elements:
        return {}
    ask = ("sacct", "-nPX", "-j", ",".join(sorted(elements)), "-o", "JobID,End")
    told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    pairs = (row.split("|") for row in told)
    return {job: seconds(at) for job, at in pairs if at != "Unknown"}


if __name__ == "__main__":
    measure.main(rows)
