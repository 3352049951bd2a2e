"""The engine of all stand-ins: jobs in a folder, moved on by whoever holds its lock.

There is no daemon. A command takes the lock, reads the state, changes it, and starts what may start
now: each element is watched by a *runner*, a process forked for it, which writes down how it ended
and then does the same. So jobs go on after every command has returned, as on a cluster.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple, Protocol

CPUS = 8
MEMORY = 64 << 10  # MiB
GRACE = 1.0  # seconds between a TERM and the KILL after it
STEP = 0.05  # seconds between two looks at a process


class Step(Enum):
    """What may become of an element that waits."""

    START = "start"
    WAIT = "wait"
    DROP = "drop"  # end it, without its having run


@dataclass
class Element:
    """A job, or one element of an array; ``code`` is negative for a signal."""

    index: int | None
    state: str = "waiting"  # then "running", then "ended"
    runner: int = 0
    started: float = 0
    ended: float = 0
    code: int | None = None  # None still after the end: it never ran
    cause: str = ""  # "time", "memory", "cancelled", "dropped": who ended it, if not itself
    memory: int = 0  # MiB, the most that was seen


class After(NamedTuple):
    """One dependency: its kind in the scheduler's own words, the job, and an element of it."""

    kind: str
    job: int
    element: int | None = None


@dataclass
class Job:
    """What one submit command took. ``facts`` is what only the stand-in's own front knows."""

    number: int
    name: str
    script: bytes
    folder: str
    variables: Mapping[str, str]
    indices: Sequence[int] | None
    cpus: int = 1
    memory: int | None = None
    limit: float | None = None  # seconds
    held: bool = False
    after: Sequence[After] = ()
    output: str = "/dev/null"
    facts: dict[str, Any] = field(default_factory=dict)
    submitted: float = field(default_factory=time.time)
    elements: dict[int | None, Element] = field(init=False)

    def __post_init__(self) -> None:
        indices: Sequence[int | None] = [None] if self.indices is None else self.indices
        self.elements = {index: Element(index) for index in indices}

    def all_are(self, state: str) -> bool:
        """Return whether every element is in this state."""
        return all(element.state == state for element in self.elements.values())

    def last(self) -> Element:
        """Give the element that ended last."""
        return max(self.elements.values(), key=lambda element: element.ended)


class State:
    """All jobs, by number."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def next(self) -> int:
        """Give the number of the next job."""
        return max(self.jobs, default=0) + 1


class House(Protocol):
    """The rules of one scheduler."""

    def step(self, state: State, job: Job, element: Element) -> Step:
        """Say what may become of an element that waits and is not held."""
        ...

    def environment(self, job: Job, element: Element) -> Mapping[str, str]:
        """Give the variables that a job finds, besides its user's."""
        ...

    def words(self, job: Job, element: Element, script: Path) -> Sequence[str]:
        """Give the command that runs a script."""
        ...

    def folder(self, job: Job) -> str:
        """Give the folder in which a job starts."""
        ...


class Unreachable(Exception):
    """There is no such scheduler to be asked."""


class Engine:
    """The state in a folder, and the rules by which it moves on."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.home = Path(os.environ["STANDIN"])

    @contextmanager
    def open(self) -> Iterator[State]:
        """Take the lock and give the state; afterwards move on, and write it down."""
        try:
            lock = open(self.home / "lock", "a")  # noqa: SIM115
        except OSError as error:
            raise Unreachable from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self.home / "state"
            state: State = pickle.loads(file.read_bytes()) if file.exists() else State()
            yield state
            self._move_on(state, lock.fileno())
            new = self.home / "state.new"
            new.write_bytes(pickle.dumps(state))
            new.rename(file)
            fcntl.flock(lock, fcntl.LOCK_UN)  # a runner may still have its copy open

    def cancel(self, element: Element) -> None:
        """End an element, by a person's wish. Called with the state open."""
        if element.state == "waiting":
            element.state, element.cause, element.ended = "ended", "cancelled", time.time()
        elif element.state == "running" and not element.cause:
            element.cause = "cancelled"
            with suppress(ProcessLookupError):
                os.kill(element.runner, signal.SIGTERM)

    def _move_on(self, state: State, lock: int) -> None:
        """Start all that may start now, and drop what never may."""
        free = CPUS - sum(
            job.cpus
            for job in state.jobs.values()
            for element in job.elements.values()
            if element.state == "running"
        )
        again = True
        while again:
            again = False
            for job in state.jobs.values():
                if job.held:
                    continue
                for element in job.elements.values():
                    if element.state != "waiting":
                        continue
                    step = self.house.step(state, job, element)
                    if step is Step.DROP:
                        element.state, element.cause = "ended", "dropped"
                        element.ended = time.time()
                        again = True
                    elif step is Step.START and job.cpus <= free:
                        free -= job.cpus
                        element.state, element.started = "running", time.time()
                        element.runner = self._fork(job, element, lock)

    def _fork(self, job: Job, element: Element, lock: int) -> int:
        """Fork a runner, which belongs to no terminal and holds nothing of its parent's open."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the runner is ready
        if runner := os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return runner
        status = 1
        try:
            os.close(lock)
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            Runner(self, job, element).run()
            status = 0
        finally:
            os._exit(status)


class Runner:
    """Watches one element from its start to its end."""

    def __init__(self, engine: Engine, job: Job, element: Element) -> None:
        self.engine, self.job, self.element = engine, job, element
        self.cause, self.memory = "", 0
        self.stop = False

    def run(self) -> None:
        """Run the element, and write down how it ended."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        code = self._run()
        with self.engine.open() as state:
            element = state.jobs[self.job.number].elements[self.element.index]
            element.state, element.ended, element.memory = "ended", time.time(), self.memory
            element.code, element.cause = code, element.cause or self.cause

    def _run(self) -> int:
        script = self.engine.home / f"script.{os.getpid()}"
        script.write_bytes(self.job.script)
        script.chmod(0o700)
        user = {name: os.environ[name] for name in ("HOME", "STANDIN") if name in os.environ}
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "USER": getuser(), **user}
        env |= self.engine.house.environment(self.job, self.element)
        try:
            with open(self.job.output, "ab") as output:
                process = subprocess.Popen(
                    self.engine.house.words(self.job, self.element, script),
                    cwd=self.engine.house.folder(self.job),
                    env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            self._watch(process)
        finally:
            script.unlink()
        return process.returncode

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        killing, looked = 0.0, 0.0
        while process.poll() is None:
            now = time.time()
            if now - looked > 10 * STEP:
                looked = now
                self.memory = max(self.memory, session_memory(process.pid))
            if not killing and self._over(now):
                killing = now
                at_limit = getattr(self.engine.house, "at_limit", signal.SIGTERM)
                end_session(process.pid, at_limit if self.cause == "time" else signal.SIGTERM)
            if killing and now - killing > GRACE:
                end_session(process.pid, signal.SIGKILL)
            time.sleep(STEP)
        end_session(process.pid, signal.SIGKILL)  # what it left behind

    def _over(self, now: float) -> bool:
        """Return whether the process is to be ended, and note why."""
        if self.job.limit and now - self.element.started > self.job.limit:
            self.cause = "time"
        elif self.job.memory and self.memory > self.job.memory:
            self.cause = "memory"
        return self.stop or bool(self.cause)


def session_processes(session: int) -> Iterator[tuple[int, int]]:
    """Give the processes of a session, and the pages each has in memory."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield int(folder.name), int(fields[21])


def session_memory(session: int) -> int:
    """Sum up the memory of a session, in MiB."""
    pages = sum(pages for _, pages in session_processes(session))
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def end_session(session: int, sign: int) -> None:
    """Send a signal to all processes of a session."""
    for process, _ in session_processes(session):
        with suppress(ProcessLookupError):
            os.kill(process, sign)


def clear(home: Path) -> None:
    """End all that runs from a folder: a test is over."""
    file = home / "state"
    if not file.exists():
        return
    with open(home / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state: State = pickle.loads(file.read_bytes())
        for job in state.jobs.values():
            job.held = True
            for element in job.elements.values():
                if element.state == "running":
                    with suppress(ProcessLookupError):
                        os.kill(element.runner, signal.SIGTERM)
        file.write_bytes(pickle.dumps(state))


def refuse(words: str, status: int) -> int:
    """Refuse a command: print a scheduler's words, and give its exit status."""
    print(words, file=sys.stderr)
    return status
