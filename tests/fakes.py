"""What tests put in a cluster's place: a scheduler in memory, and a node to run its scripts on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hpcpipe.errors import SchedulerError
from hpcpipe.graph.workflow import Workflow
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.run import Run, submit
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.site import Limits, Queue, Site
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.outcomes import Store
from hpcpipe.store.record import read_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import load_value

QUEUED = JobStatus(State.QUEUED, "PENDING", "Priority")
HELD = JobStatus(State.HELD, "PENDING", "JobHeldUser")
RUNNING = JobStatus(State.RUNNING, "RUNNING")
BLOCKED = JobStatus(State.BLOCKED, "PENDING", "DependencyNeverSatisfied")
LIVE = (QUEUED, HELD, RUNNING)
CANCELLED = JobEnd("CANCELLED by 424242", Reason.CANCELLED)


@dataclass(frozen=True)
class FakeJob:
    """What was submitted: the batch, and all that was said with it."""

    batch: str
    after: tuple[After, ...]
    token: str
    held: bool

    @property
    def node(self) -> str:
        return self.batch.rpartition("-")[0]


class FakeScheduler:
    """Accepts jobs and runs none. ``says`` is its word on every element, for a test to change:
    a status is in the queue, an end in the accounting, and what is missing in neither."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, with nothing submitted."""
        self.where = "local:fake"  # the instance that answers
        self.hidden: set[str] = set()  # elements that only the accounting knows to be live
        self.deaf: set[str] = set()  # verbs that are accepted and do nothing
        self.jobs: dict[str, FakeJob] = {}
        self.says: dict[str, JobStatus | JobEnd] = {}
        self.calls: list[str] = []
        self.hook: Callable[[str], None] = lambda _: None  # may raise
        self.charged: Sequence[str] = ("lab", "teach")  # accounts

    def instance(self) -> str:
        return self.where

    def _call(self, step: str) -> None:
        self.calls.append(step)
        self.hook(step)

    @property
    def live(self) -> dict[str, FakeJob]:
        """The jobs of which anything is in the queue."""
        names = {one.partition("_")[0] for one, word in self.says.items() if word in LIVE}
        return {name: job for name, job in self.jobs.items() if name in names}

    def _of(self, ids: Collection[str]) -> list[str]:
        return [one for one in self.says if one in ids or one.partition("_")[0] in ids]

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        self._call("submit")
        job = str(len(self.jobs) + 1)
        self.jobs[job] = FakeJob(script.stem, tuple(after), token, held)
        array = re.search(r"--array=(\S+)", script.read_text(errors="replace"))
        elements = [f"{job}_{i}" for i in parse_indices(array[1])] if array else [job]
        self.says |= dict.fromkeys(elements, HELD if held else QUEUED)
        self._call("submitted")
        return job

    def release(self, jobs: Sequence[str]) -> None:
        if not jobs:
            return
        self._call("release")
        if "release" in self.deaf:
            return
        waiting = {one for one in self._of(jobs) if self.says[one] in (HELD, QUEUED)}
        self.says |= dict.fromkeys(waiting, QUEUED)
        self._call("released")
        if waiting != set(self._of(jobs)):
            raise SchedulerError("Job has already finished for some job")

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        if jobs:
            self._call("poll")
        said = {one: self.says[one] for one in self._of(jobs)}
        live = {one: word for one, word in said.items() if isinstance(word, JobStatus)}
        return {one: word for one, word in live.items() if one not in self.hidden}

    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd | JobStatus]:
        if jobs:
            self._call(f"account since {since:.0f}")
        said = {one: self.says[one] for one in self._of(jobs)}
        return {one: w for one, w in said.items() if isinstance(w, JobEnd) or one in self.hidden}

    def cancel(self, jobs: Sequence[str]) -> None:
        if jobs:
            self._call("cancel")
        if "cancel" in self.deaf:
            return
        live = [one for one in self._of(jobs) if isinstance(self.says[one], JobStatus)]
        self.says |= dict.fromkeys(live, CANCELLED)
        if jobs:
            self.hook("cancelled")

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if tokens:
            self._call("find")
        return {job.token: name for name, job in self.live.items() if job.token in tokens}

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"

    def count(self) -> int | None:
        return None

    def accounts(self) -> Sequence[str]:
        return self.charged


@dataclass(frozen=True)
class Element:
    """Where a task was put: its batch, index and job, and the files its outcome goes to."""

    batch: str
    index: int | None
    job: str
    good: Path
    bad: Path
    claim: Path


@dataclass(frozen=True)
class Done:
    """What a script left behind."""

    status: int
    out: bytes
    err: str


class Lab:
    """A workflow whose batches a `FakeScheduler` accepts and whose scripts a test runs one by one,
    as the local scheduler would."""

    def __init__(self, folder: Path, scheduler: FakeScheduler) -> None:
        self.scheduler = scheduler
        self.workflow = Workflow("lab", folder, source=__file__)
        self.rundir = RunDir(self.workflow.folder)
        self.site = self.settling(0)

    @property
    def store(self) -> Store:
        """The outcomes of its tasks."""
        return Store(self.rundir)

    def settling(self, seconds: int) -> Site:
        """Give a site whose common filesystem may show a file so late."""
        return Site(limits=Limits(poll_seconds=10, settle_seconds=seconds))

    def with_queue(self, name: str) -> Site:
        """Give a site of one queue."""
        return Site(queues=(Queue(name=name),))

    def submit(self) -> Run:
        return submit(self.workflow, site=self.site)

    def find(self, task: str) -> Element:
        """Find where a task (``node/label``) was submitted last."""
        history = Ledger(self.rundir.ledger).read()
        records = [read_record(self.rundir, run["run"]) for run in reversed(history.runs)]
        [(node, place)] = records[0].find(task)
        key = node.key(place)
        for batch in [batch for record in records for batch in record.batches.values()]:
            for _, one, index in batch.tasks():
                if one == key:
                    good = self.store.result(node.name, key)
                    bad = self.store.error(node.name, key, batch.id)
                    job = history.submissions[batch.id].job or ""
                    return Element(batch.id, index, job, good, bad, good.with_suffix(".claim"))
        raise AssertionError(f"{task} was not submitted")

    @contextmanager
    def start(
        self, task: str | Element, shell: Sequence[str] = ("/bin/sh",), **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a task's script in the run folder, its output in pipes; what fails ends it."""
        element = self.find(task) if isinstance(task, str) else task
        if Ledger(self.rundir.ledger).read().continuations():
            # As if one had been called for: the script would have a real scheduler continue it.
            self.rundir.waking.touch()
        index = {} if element.index is None else {"HPCPIPE_INDEX": str(element.index)}
        not_ours = ("HPCPIPE_INDEX", "PYTHONUNBUFFERED")
        kept = {name: value for name, value in os.environ.items() if name not in not_ours}
        with subprocess.Popen(
            [*shell, f"batches/{element.batch}.sh"],
            cwd=self.rundir.home,
            env={**kept, "HPCPIPE_JOB_ID": element.job, **index, **options.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        ) as process:
            try:
                yield process
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    def run(
        self, task: str | Element, *, shell: Sequence[str] = ("/bin/sh",), **options: Any
    ) -> Done:
        """Run a task's script to its end."""
        with self.start(task, shell, **options) as process:
            return finished(process)

    def outcome(self, task: str) -> Mapping[str, Any]:
        """Read what a task's outcome says of itself, good or bad."""
        element = self.find(task)
        node, key = element.good.parent.name, element.good.stem
        said: Mapping[str, Any] = self.store.get(
            node, key, None if element.good.exists() else element.batch
        )
        return said

    def value(self, task: str) -> Any:
        """Load what a task returned."""
        return load_value(str(self.find(task).good))


def finished(process: subprocess.Popen[bytes]) -> Done:
    """Wait for a process that was started."""
    out, err = process.communicate(timeout=30)
    return Done(process.returncode, out, err.decode(errors="replace"))


def ends_of(scheduler: Scheduler, *jobs: str) -> Mapping[str, JobEnd]:
    """Ask the accounting about jobs, and give those that have ended."""
    said = scheduler.account(jobs, 0)
    return {element: end for element, end in said.items() if isinstance(end, JobEnd)}


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition to hold."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)
