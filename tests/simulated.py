"""A world to test in: two clusters, their nodes, clients with clocks of their own, and late files.

What runs in it is real, but for the schedulers, the processes on nodes, and time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pickle import dumps
from typing import ClassVar

from fakes import BLOCKED, CANCELLED, HELD, QUEUED, RUNNING

from hpcpipe.errors import SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason
from hpcpipe.worker.claim import Held, find_process, take
from hpcpipe.worker.outcome import CLAIMED, cancelled_path, dict_of
from hpcpipe.worker.task import Element, TaskFile, claim

NODE_FAILED = JobEnd("NODE_FAIL", Reason.NODE)
FIRST_PID = 5_000_000  # of processes on simulated nodes: more than a kernel gives
NOTHING = dumps(None)
DEAD = 137


class Killed(BaseException):
    """The client was killed."""


class World:
    """Time, what happens at which time, what runs, and which files are late.

    It stands in for the module ``time``: a client's clock is off by ``skew``, and goes on only
    while somebody waits.
    """

    def __init__(self, home: Path, now: float) -> None:
        self.home, self.now, self.skew = home, now, 0.0
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.count = 0  # of events and processes
        self.late: dict[Path, Path] = {}  # where clients will see it → where it is
        self.running: dict[tuple[str, str], Worker] = {}  # tasks that run, by node and key
        self.succeeded: set[tuple[str, str]] = set()
        self.alive: set[str] = set()

    def time(self) -> float:
        return self.now + self.skew

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.at(seconds, lambda: None)
        until = self.now + seconds
        while self.events and self.events[0][0] <= until:
            self.now, _, happen = self.events.pop(0)
            happen()

    def at(self, seconds: float, happen: Callable[[], object]) -> None:
        """Have something happen in some seconds."""
        self.count += 1
        self.events.append((self.now + seconds, self.count, happen))
        self.events.sort(key=lambda one: one[:2])

    def find_process(self, pid: str = "self") -> tuple[str, str] | None:
        """Find a process on a node, or on this host."""
        if pid.isdigit() and int(pid) >= FIRST_PID:
            return (pid, "1") if pid in self.alive else None
        return find_process(pid)

    @contextmanager
    def node(self) -> Iterator[None]:
        """Work on a node: in the run's folder, by the right time, where no file is late."""
        before, skew, self.skew = os.getcwd(), self.skew, 0
        for seen, hidden in self.late.items():
            hidden.rename(seen)
        os.chdir(self.home)
        try:
            yield
        finally:
            os.chdir(before)
            self.skew = skew
            for seen, hidden in [*self.late.items()]:
                if seen.exists():
                    seen.rename(hidden)
                else:
                    del self.late[seen]

    def hide(self, file: Path, seconds: float) -> None:
        """Have clients see a file only in some seconds."""
        hidden = self.home.parent / f"late-{file.name}"
        if seconds and file.exists() and file not in self.late:
            file.rename(hidden)
            self.late[file] = hidden
            self.at(seconds, lambda: self.arrive(file))

    def arrive(self, file: Path) -> None:
        if hidden := self.late.pop(file, None):
            hidden.rename(file)


@dataclass(eq=False)
class Worker:
    """The worker of one element on a node: the real claims and outcomes, and no process."""

    world: World
    batch: str
    spelled: str
    index: int | None
    position: int
    attempt: int
    end: Callable[[int], None]
    todo: list[Element] = field(default_factory=list)
    now: Element | None = None

    def start(self) -> None:
        with self.world.node():
            if self.is_cancelled():
                self.end(85)
                return
            self.world.count += 1
            self.pid = str(FIRST_PID + self.world.count)
            self.world.alive.add(self.pid)
            host = f"node{self.world.count % 3}"
            said = f"{self.pid} 1 {self.attempt} {self.spelled} {self.batch}"
            mine = f"{host} boot-of-{host} pid:[1] {said}\n"
            file = TaskFile(f"batches/{self.batch}.tasks", self.position)
            self.pack, self.done = file.pack, set[str]()
            if file.pack:
                try:
                    take(f"{file.pack}.claim", mine)
                except Held:
                    self.leave(CLAIMED)
                    return
                self.done = {key for key, good in dict_of(file.pack).items() if good}
            self.todo = [
                Element(file, number, self.spelled, str(self.attempt), mine)
                for number in range(len(file.payloads))
            ]
            self.go_on(0)

    def is_cancelled(self) -> bool:
        try:
            words = Path(cancelled_path(self.batch)).read_text().split()
        except FileNotFoundError:
            return False
        return "all" in words or str(self.index) in words

    def go_on(self, code: int) -> None:
        """Begin the next task that may run."""
        while self.todo:
            one = self.todo.pop(0)
            bar = (0, "") if one.key in self.done else claim(one)
            if bar is None:
                self.begin(one)
                return
            code = bar[0]
            if self.pack and code:
                one.begin()
                facts = one.record(ok=False, error=bar[1], barred=bar[0])
                one.keep(False, facts, NOTHING)
        if self.pack:
            os.unlink(f"{self.pack}.claim")
        self.leave(0 if self.pack else code)

    def begin(self, one: Element) -> None:
        task = (one.node, one.key)
        other = self.world.running.get(task)
        assert other is None, f"{task} runs twice at once: {self.spelled}, {other}"
        assert task not in self.world.succeeded, f"{task} runs again though it has succeeded"
        self.world.running[task] = self
        one.begin()
        self.now = one

    def finish(self, good: bool, late: float = 0, **facts: object) -> None:
        """Have the task that runs end by itself."""
        if self.now is None:
            return
        with self.world.node():
            one, self.now = self.now, None
            del self.world.running[one.node, one.key]
            failure = {"error": "exit 3", "exit": 3, **facts}
            one.keep(good, one.record(ok=good, **({} if good else failure)), NOTHING)
            one.release()
            file = self.world.home / (one.pack or (one.good if good else one.bad))
            os.utime(file, (self.world.now, self.world.now))
            if good:
                self.world.succeeded.add((one.node, one.key))
            self.todo = [] if "signal" in facts else self.todo
            self.go_on(0 if good else 1)
        if not one.pack:
            self.world.hide(file, late)

    def die(self, softly: bool) -> None:
        """Kill it: with a warning, after which the task that runs is recorded, or at once."""
        if softly:
            self.finish(False, error="terminated", signal=15, terminated=True)
        if self.now is not None:
            del self.world.running[self.now.node, self.now.key]
            self.now = None
            self.leave(DEAD)

    def leave(self, code: int) -> None:
        self.world.alive.discard(self.pid)
        self.end(code)


@dataclass(eq=False)
class Queued:
    """One element of an array, or a plain job, as its scheduler sees it."""

    job: Job
    index: int | None
    position: int
    spelled: str
    word: JobStatus | JobEnd
    attempt: int = 0
    code: int | None = None
    worker: Worker | None = None
    cancelled: bool = False
    told: float = 0.0  # when the accounting knows its end

    @property
    def live(self) -> bool:
        return isinstance(self.word, JobStatus)


@dataclass(eq=False)
class Job:
    batch: str
    after: tuple[After, ...]
    token: str
    elements: list[Queued] = field(default_factory=list)


class Cluster:
    """A scheduler with an instance of its own. Others' jobs have ids, too: to ask it about one of
    these, or to cancel one, is an error."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self, world: World, where: str, others: int) -> None:
        self.world, self.where = world, where
        self.last = others  # the last id: up to it all are others' jobs
        self.jobs: dict[str, Job] = {}
        self.faults: list[str] = []  # of the next submit commands
        self.mute: set[str] = set()  # verbs that get no answer
        self.deaf: set[str] = set()  # verbs that are accepted and do nothing
        self.lag = 0.0  # of the accounting
        self.amnesia = False  # the accounting forgets
        self.slow = 0.0  # seconds until what is cancelled ends

    def instance(self) -> str:
        return self.where

    @property
    def elements(self) -> list[Queued]:
        return [one for job in self.jobs.values() for one in job.elements]

    def _of(self, ids: Collection[str], verb: str) -> list[Queued]:
        if ids and verb in self.mute:
            raise SchedulerUnavailable("no answer")
        for one in ids:
            assert one.partition("_")[0] in self.jobs, f"{verb} {one}: of others, on {self.where}"
        found = [(one, job) for job in self.jobs for one in self.jobs[job].elements]
        return [one for one, job in found if job in ids or one.spelled in ids]

    # --- submit -----------------------------------------------------------------------------------

    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        fault = self.faults.pop(0) if self.faults else ""
        for one in after:
            assert one.job in self.jobs, f"after {one.job}: of others, on {self.where}"
        if fault == "killed before":
            raise Killed
        if fault == "refused":
            raise SchedulerError("Invalid qos")
        if fault == "lost before":
            raise SubmitUnclear("Socket timed out")
        if fault.startswith("late"):
            arrive = partial(self._accept, script, after, token, held)
            self.world.at(float(fault.removeprefix("late ")), arrive)
            raise SubmitUnclear("Socket timed out")
        job = self._accept(script, after, token, held)
        if fault == "lost after":
            raise SubmitUnclear("Socket timed out")
        if fault == "killed after":
            raise Killed
        return job

    def _accept(self, script: Path, after: Sequence[After], token: str, held: bool) -> str:
        self.last += 1
        name, job = str(self.last), Job(script.stem, tuple(after), token)
        array = re.search(r"--array=(\S+)", script.read_text(errors="replace"))
        for position, index in enumerate(parse_indices(array[1]) if array else [None]):
            spelled = self.element(name, index)
            job.elements.append(Queued(job, index, position, spelled, HELD if held else QUEUED))
        self.jobs[name] = job
        return name

    # --- other verbs ------------------------------------------------------------------------------

    def release(self, jobs: Sequence[str]) -> None:
        found = self._of(jobs, "release")
        if "release" in self.deaf:
            return
        for one in found:
            if one.word == HELD:
                one.word = QUEUED
        if not all(one.live for one in found):
            raise SchedulerError("Job has already finished for some job")

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        return {
            one.spelled: BLOCKED if self.readiness(one) is False else one.word
            for one in self._of(jobs, "poll")
            if isinstance(one.word, JobStatus)
        }

    def account(self, jobs: Collection[str], _: float) -> Mapping[str, JobEnd | JobStatus]:
        found: dict[str, JobEnd | JobStatus] = {}
        for one in self._of(jobs, "account"):
            if one.live or self.world.now < one.told:
                found[one.spelled] = RUNNING
            elif not self.amnesia:
                found[one.spelled] = one.word
        return found

    def cancel(self, jobs: Sequence[str]) -> None:
        found = self._of(jobs, "cancel")
        if "cancel" in self.deaf:
            return
        for one in found:
            if one.word == RUNNING:
                self.world.at(self.slow, partial(self.kill, one))
            elif one.live:
                self.end(one, CANCELLED)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        if tokens and "find" in self.mute:
            raise SchedulerUnavailable("no answer")
        live = {name: job for name, job in self.jobs.items() if any(e.live for e in job.elements)}
        return {job.token: name for name, job in live.items() if job.token in tokens}

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"

    def count(self) -> int | None:
        return None

    def accounts(self) -> Sequence[str]:
        return ()

    # --- what happens by itself -------------------------------------------------------------------

    def readiness(self, one: Queued) -> bool | None:
        """Whether an element may start, may never, or has to wait."""
        ready: bool | None = True
        for after in one.job.after:
            index = one.index if after.kind == "each" else after.element
            elements = self.jobs[after.job].elements
            on = [each for each in elements if index is None or each.index in (index, None)]
            if after.well and any(not each.live and each.code != 0 for each in on):
                return False
            if any(each.live for each in on):
                ready = None
        return ready

    def ready(self) -> list[Queued]:
        return [one for one in self.elements if one.word == QUEUED and self.readiness(one)]

    def start(self, one: Queued) -> None:
        one.word = RUNNING

        def end(code: int) -> None:
            one.code = code
            said = JobEnd("FAILED", Reason.EXIT, code) if code else JobEnd("COMPLETED", None, 0)
            self.end(one, CANCELLED if one.cancelled else said)

        batch, attempt = one.job.batch, one.attempt
        place = (batch, one.spelled, one.index, one.position, attempt)
        one.worker = Worker(self.world, *place, end)
        one.worker.start()

    def end(self, one: Queued, said: JobEnd) -> None:
        one.word, one.told = said, self.world.now + self.lag
        one.code = DEAD if one.code is None else one.code

    def kill(self, one: Queued, softly: bool = True) -> None:
        if one.word == RUNNING and one.worker:
            one.cancelled = True
            one.worker.die(softly)

    def fail_node(self, one: Queued) -> None:
        if one.word == RUNNING and one.worker:
            one.worker.die(softly=False)
            one.word = NODE_FAILED

    def requeue(self, one: Queued, softly: bool) -> None:
        if one.word == RUNNING and one.worker:
            one.worker.die(softly)
            one.word, one.code, one.attempt, one.worker = QUEUED, None, one.attempt + 1, None
