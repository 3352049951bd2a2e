"""The process that runs the jobs of `local`: one for each user, host and spool.

Started by a client when there is work and no keeper, it leaves the terminal, runs what may run,
and goes when nothing has run for some seconds. It sleeps until it is woken: by a byte in the FIFO,
by the end of a child, by the next deadline. All it knows is in the spool, so that it may die at
any moment: the next keeper ends what it left running, and goes on with what waits.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.schedulers.local import daemon, tree
from hpcpipe.schedulers.local.queue import STARTED, WAITING, Job, Queue, fits, read_job
from hpcpipe.schedulers.local.spool import RELEASED, RUNNING, STARTING, Spool, end_lines, event_line

KEEP_SECONDS = 7 * 86400  # how long ended jobs can be asked about
LOOK_SECONDS = 1.0  # between two looks at memory
STOP_SECONDS = 0.1  # between two looks at what was asked to end
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
HOST = os.uname().nodename

COMPLETED = JobEnd("COMPLETED", None)
FAILED = JobEnd("FAILED", Reason.EXIT)
KILLED = JobEnd("FAILED", Reason.SIGNAL)
CANCELLED = JobEnd("CANCELLED", Reason.CANCELLED)
NEVER = JobEnd("CANCELLED", Reason.UPSTREAM)
TIMEOUT = JobEnd("TIMEOUT", Reason.TIME)
OUT_OF_MEMORY = JobEnd("OUT_OF_MEMORY", Reason.MEMORY)
LOST = JobEnd("LOST", Reason.LOST, host=HOST)
LAUNCH_FAILED = JobEnd("LAUNCH_FAILED", Reason.NODE, host=HOST)


@dataclass(eq=False)
class Running:
    """An element that was started and is not done with."""

    job: Job
    at: int
    pid: int
    since: float
    stopping: JobEnd | None = None  # what it will have ended as
    kill_at: float = math.inf
    peak: int = 0  # bytes
    status: int | None = None  # once the leader of its session has ended

    @property
    def element(self) -> str:
        return self.job.element(self.at)

    @property
    def deadline(self) -> float:
        return self.kill_at if self.stopping else self.since + (self.job.spec.time or math.inf)


class Keeper:
    """The books and the running elements; `serve` is its life."""

    def __init__(self, spool: Spool, linger: float) -> None:
        self._spool = spool
        self._linger = linger
        self._queue = Queue(partial(read_job, spool))
        self._environment = lru_cache(maxsize=32)(spool.environment)
        self._running: dict[int, Running] = {}
        self._last = 0  # the highest job id taken in
        self._starved = False  # something waits for memory that others may give back
        self._machine = tree.machine()

    def take_over(self) -> None:
        """Read the spool, and end what an earlier keeper left running."""
        leaders: dict[int, str] = {}
        orphans: list[tuple[Job, list[int]]] = []
        for name in self._spool.ids():
            self._last = int(name)
            if self._spool.ended(name):
                continue
            self._spool.mend(name)
            if (job := self._add(name)) is None:
                continue
            lost = [at for at, code in enumerate(job.state) if code == STARTED]
            orphans.append((job, lost))
            indices = {job.indices[at] for at in lost}
            events = self._spool.events(name) if lost else ()
            leaders |= dict.fromkeys(tree.surviving(events, indices), name)
        tree.kill(leaders, str(self._spool.root), strays=True)
        for job, lost in orphans:
            self._end(job, lost, LOST)
        needed = {after.job for job in self._queue.jobs.values() for after in job.spec.after}
        self._spool.purge(time.time() - KEEP_SECONDS, needed)

    def serve(self, *wakers: int) -> None:
        """Run what may run, woken by descriptors, until nothing has run for ``linger`` seconds."""
        idle_since = time.monotonic()
        look_at = 0.0
        while True:
            self._reap()
            self.take_in()
            now = time.monotonic()
            if now >= look_at:
                self._check_memory(now)
                look_at = now + LOOK_SECONDS
            self._enforce(now)
            self._start()
            if self._running:
                idle_since = now
            elif now >= idle_since + self._linger:
                return
            wake_at = self._next_deadline(look_at) if self._running else idle_since + self._linger
            pause = None if wake_at == math.inf else max(0.0, wake_at - time.monotonic())
            for ready in select.select(wakers, [], [], pause)[0]:
                os.read(ready, 65536)

    def take_in(self) -> bool:
        """Take in new jobs and requests; tell whether there were any."""
        news = False
        requests = self._spool.requests()  # before the jobs, or one for a job yet unseen is lost
        while self._spool.folder(str(self._last + 1)).is_dir():
            self._last += 1
            self._add(str(self._last))
            news = True
        for verb, ids in requests:
            news = True
            for one in ids:
                name, _, index = one.partition("_")
                if (job := self._queue.jobs.get(name)) is None:
                    continue
                if verb == "cancel":
                    self._cancel(job, job.positions(int(index) if index else None))
                elif job.held:
                    job.held = False
                    self._spool.record(name, event_line(0, 0, RELEASED))
        return news

    def end_all(self) -> None:
        """Kill whatever runs: a keeper that cannot go on leaves nothing behind unwatched."""
        tree.kill(_leaders(self._running.values()), str(self._spool.root))

    def _add(self, name: str) -> Job | None:
        job = read_job(self._spool, name)
        if job is not None:
            for stuck, doomed in self._queue.add(job):
                self._record(stuck, doomed, NEVER)
            if not job.left:
                self._spool.mark_ended(name)
        return job

    def _end(self, job: Job, ended: Sequence[int], end: JobEnd) -> None:
        """Enter the end of elements into the books, and of those that now can never start."""
        if ended:
            buried = self._queue.settle(job, ended, well=end.reason is None)
            self._record(job, ended, end)
            for stuck, doomed in buried:
                self._record(stuck, doomed, NEVER)

    def _record(self, job: Job, ended: Sequence[int], end: JobEnd) -> None:
        self._spool.record(job.id, end_lines([job.indices[at] for at in ended], end))
        if not job.left:
            self._spool.mark_ended(job.id)

    def _cancel(self, job: Job, wanted: Sequence[int]) -> None:
        self._end(job, [at for at in wanted if job.state[at] in WAITING], CANCELLED)
        runs = self._running.values()
        self._stop([run for run in runs if run.job is job and run.at in wanted], CANCELLED)

    def _stop(self, runs: Iterable[Running], end: JobEnd) -> None:
        """Ask elements to end; `_enforce` kills those that take too long over it."""
        asked = [run for run in runs if run.stopping is None]
        for run in asked:
            run.stopping = end
            run.kill_at = time.monotonic() + run.job.spec.grace
        if asked:
            tree.terminate(_leaders(asked), str(self._spool.root))

    def _enforce(self, now: float) -> None:
        """Stop what is past its time, kill what did not stop, finish what has gone."""
        self._stop([run for run in self._running.values() if now >= run.deadline], TIMEOUT)
        late = [run for run in self._running.values() if run.stopping and now >= run.kill_at]
        if late:
            tree.kill(_leaders(late), str(self._spool.root))
            self._reap()
        for run in late:
            run.kill_at = now + run.job.spec.grace + STOP_SECONDS  # what cannot die yet, later
        gone = [run for run in self._running.values() if run.stopping and run.status is not None]
        if gone:
            alive = tree.alive(_leaders(gone), str(self._spool.root))
            for run in gone:
                if run.element not in alive:
                    self._finish(run)

    def _check_memory(self, now: float) -> None:
        watched = [run for run in self._running.values() if run.job.spec.memory]
        processes = tree.find_processes(_leaders(watched)) if watched else {}
        for run in watched:
            used = tree.memory(processes.get(run.element, ()))
            run.peak = max(run.peak, used)
            if used > (run.job.spec.memory or 0) * tree.MIB and run.stopping is None:
                run.stopping, run.kill_at = OUT_OF_MEMORY, now

    def _next_deadline(self, look_at: float) -> float:
        runs = self._running.values()
        due = [run.deadline for run in runs]
        if any(run.stopping and run.status is not None for run in runs):
            due.append(time.monotonic() + STOP_SECONDS)
        if self._starved or any(run.job.spec.memory for run in runs):
            due.append(look_at)
        return min(due)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (child := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = child
                run = self._running[pid]
                run.status = status
                run.peak = max(run.peak, usage.ru_maxrss * RSS_UNIT)
                if run.stopping is None:
                    # What it left in the background dies with it, as under any scheduler.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)
                    self._finish(run)

    def _finish(self, run: Running) -> None:
        del self._running[run.pid]
        code = os.waitstatus_to_exitcode(run.status or 0)
        end = COMPLETED if code == 0 else FAILED if code > 0 else KILLED
        end = (run.stopping or end)._replace(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            max_memory=round(run.peak / tree.MIB),
            wall=time.monotonic() - run.since,
            host=HOST,
        )
        self._end(run.job, [run.at], end)

    def _start(self) -> None:
        """Start what fits, in strict order, so that the small never starve the big."""
        self._starved = False
        while (found := self._queue.next()) is not None:
            job, at = found
            specs = [run.job.spec for run in self._running.values()]
            if not fits(job.spec, specs, self._machine, tree.available_memory):
                self._starved = job.spec.memory is not None
                return
            self._launch(job, at)

    def _launch(self, job: Job, at: int) -> None:
        index = job.indices[at]
        self._spool.record(job.id, event_line(index, index, STARTING))
        try:
            environment = self._environment(job.id)
            pid = tree.start(self._spool, job.id, job.spec, index, environment)
        except OSError as error:
            print(f"{job.element(at)} could not be started: {error}", file=sys.stderr, flush=True)
            self._end(job, [at], LAUNCH_FAILED)
            return
        job.state[at] = STARTED
        self._running[pid] = Running(job, at, pid, time.monotonic())
        self._spool.record(job.id, event_line(index, index, RUNNING, str(pid)))


def _leaders(runs: Iterable[Running]) -> dict[int, str]:
    return {run.pid: run.element for run in runs}


def main(root: str, linger: str) -> None:
    """Become the spool's keeper, unless there is one; come back when somebody keeps it."""
    spool = Spool(Path(root))
    lock = daemon.take_lock(spool)
    if lock is None:
        return
    wake = daemon.listen(spool)
    keeper = Keeper(spool, float(linger))
    keeper.take_over()
    daemon.leave_terminal(spool, lock)
    children = daemon.hear_children()
    try:
        while True:
            keeper.serve(wake[0], children)
            # A client that finds no reader from here on starts a keeper, which waits for our
            # lock. What came while there was a reader is seen now.
            daemon.stop_listening(wake)
            if not keeper.take_in():
                return
            wake = daemon.listen(spool)
    finally:
        keeper.end_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
