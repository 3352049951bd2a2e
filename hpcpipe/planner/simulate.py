"""The simulator: when each element of a plan would start, and the makespan.

It knows the rules that batch schedulers have in common, and no scheduler's name:

* jobs are considered in the order in which they were submitted, elements in that of their indices;
  whatever is ready and fits in the free cores starts;
* an element whose job waits for *all* of another starts after every element of that has ended;
* one that waits for *each* starts after its namesake, the element of the same index; without a
  namesake, after all of them (as Slurm 22.05 and Grid Engine 8.1.9 were seen to do);
* of a job that waits for each of another, only the ``window`` lowest elements that have not started
  are considered, where the scheduler has such a window (Slurm's ``correspond_after_task_cnt``).

All elements succeed; memory and other limits are left out.

The search simulates thousands of plans, so time passes job by job, not element by element: a job
starts its elements on whichever core is free first until a job before it can start some::

    cores   1  [a0     ][a3 ][b0      ]      a deals out a0 to a3 in one loop, over the ends of
            2  [a1 ][a2     ][b1  ]          what runs; when its last element has started, its end
                              ^ end of a     is known, and so is when b can start
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush, heapreplace
from math import gcd, inf

from hpcpipe.errors import UsageError
from hpcpipe.planner.batch import Wait


@dataclass(frozen=True, eq=False)
class Job:
    """One submission: the seconds of its elements in the order of their indices, and its waits.

    Waits are for earlier jobs, by number; jobs of earlier submissions are taken to have ended.
    """

    seconds: Sequence[float]
    indices: Sequence[int]
    waits: Sequence[Wait] = ()
    cpus: int = 1


@dataclass(frozen=True, eq=False)
class Simulated:
    """The makespan in seconds, each element's start, job after job, and the core-seconds used."""

    makespan: float
    starts: list[float]
    core_seconds: float


def simulate(
    jobs: Sequence[Job], cores: int, *, window: int | None = None, latency: float = 0.0
) -> Simulated:
    """Run jobs on ``cores`` cores; ``latency`` is added to every element.

    Raises UsageError where an element asks for more cores than there are.
    """
    if latency:
        jobs = [replace(job, seconds=[one + latency for one in job.seconds]) for job in jobs]
    run = _Simulation(jobs, cores, window)
    end = run.run()
    core_seconds = sum(job.cpus * sum(job.seconds) for job in jobs)
    return Simulated(end, [start for starts in run.starts for start in starts], core_seconds)


def makespan(jobs: Sequence[Job], cores: int, *, window: int | None = None) -> float:
    """Return the seconds that jobs take on ``cores`` cores; see `simulate`."""
    return _Simulation(jobs, cores, window).run()


class _Simulation:
    """The state of a simulation. Cores are counted in the largest unit that all jobs share."""

    def __init__(self, jobs: Sequence[Job], cores: int, window: int | None) -> None:
        most = max([job.cpus for job in jobs], default=1)
        if most > cores:
            raise UsageError(f"an element asks for {most} cores, and there are {cores}")
        unit = gcd(*{job.cpus for job in jobs}) or 1
        self._jobs = jobs
        self._widths = [job.cpus // unit for job in jobs]
        self._idle = cores // unit
        wanted = [width * len(job.seconds) for width, job in zip(self._widths, jobs, strict=True)]
        self._endless = self._idle >= sum(wanted)
        self._busy: list[float] = []  # a heap: for each unit in use, when it is free again
        self._ready: dict[int, list[int]] = {width: [] for width in self._widths}  # heaps of jobs
        self._soon: list[tuple[float, int]] = []  # a heap: when a job may start, and which
        self._from = [0.0] * len(jobs)  # when a job may start, as far as is known
        self._ends = [0.0] * len(jobs)  # when a job ends, as far as is known
        self._unknown = [0] * len(jobs)  # how many of its waits end at an unknown time
        self._left = len(jobs)  # jobs of which some elements have not started
        self._after: list[list[int]] = [[] for _ in jobs]  # job → jobs that wait for all of it
        self._after_one: dict[int, list[tuple[int, int]]] = {}  # job → positions in it, and jobs
        self._after_each: dict[int, list[int]] = {}  # job → jobs that wait for each of it
        self._paired: dict[int, _Paired] = {}
        self.starts: list[list[float]] = [[] for _ in jobs]
        for number, job in enumerate(jobs):
            self._link(number, job, window)

    def _link(self, number: int, job: Job, window: int | None) -> None:
        above = []
        for on, kind, index, _ in job.waits:
            if not isinstance(on, int):
                continue
            if kind == "each":
                above.append(on)
                self._after_each.setdefault(on, []).append(number)
                continue
            self._unknown[number] += 1
            if index is None:
                self._after[on].append(number)
            else:
                indices = self._jobs[on].indices
                self._after_one.setdefault(on, []).append((indices.index(index), number))
        if above:
            self._paired[number] = _Paired(job, {on: self._jobs[on] for on in above}, window)
            self.starts[number] = [0.0] * len(job.seconds)
        elif not self._unknown[number]:
            self._soon.append((0.0, number))

    def run(self) -> float:
        """Simulate until all elements have started; return when the last one ends."""
        soon, ready, busy = self._soon, self._ready, self._busy
        one = next(iter(ready.values())) if len(ready) == 1 else None  # all jobs are as wide
        now = 0.0
        while self._left:
            while soon and soon[0][0] <= now:
                number = heappop(soon)[1]
                if number not in self._paired or self._paired[number].admit():
                    heappush(ready[self._widths[number]], number)
            if one is None:
                fit = [heap[0] for width, heap in ready.items() if heap and width <= self._idle]
                if fit:
                    self._start(min(fit), now, now)  # no longer: another may fit where it does not
                    continue
            elif one and self._idle:
                limit = inf
                if len(soon) and len(self._jobs[one[0]].seconds) > 1:
                    limit = min([at for at, other in soon if other < one[0]], default=inf)
                self._start(one[0], now, limit)
                continue
            later = soon[0][0] if soon else inf
            if busy and any(ready.values()):
                later = min(later, busy[0])
            if later == inf:
                raise AssertionError("some elements could never start")  # a planner's mistake
            now = later
            while busy and busy[0] <= now:
                heappop(busy)
                self._idle += 1
        return max(self._ends, default=0.0)

    def _start(self, number: int, now: float, limit: float) -> None:
        """Start elements of a job until the limit, and note what is known by that."""
        paired = self._paired.get(number)
        if paired:
            positions, ends = self._deal_paired(paired, number, now, limit)
            left, stays = paired.left, bool(paired.ready)
        else:
            first, ends = self._deal(number, now, limit)
            positions = range(first, first + len(ends))
            left = len(self._jobs[number].seconds) - len(self.starts[number])
            stays = left > 0
        if not stays:
            heappop(self._ready[self._widths[number]])
        if ends:
            self._ends[number] = max(self._ends[number], max(ends))
            for below in self._after_each.get(number, ()):
                self._paired[below].know(number, positions, ends)
                self._await(below)
            for position, below in self._after_one.get(number, ()):
                if position in positions:
                    self._know(below, ends[positions.index(position)])
        if not left:
            self._left -= 1
            for below in self._after[number]:
                self._know(below, self._ends[number])
            for below in self._after_each.get(number, ()):
                self._paired[below].know_end(number, self._ends[number])
                self._await(below)
        elif paired and not stays:
            paired.awaited = inf
            self._await(number)

    def _deal(self, number: int, now: float, limit: float) -> tuple[int, list[float]]:
        """Start elements in order; return the position of the first, and the ends."""
        seconds, starts, width = (
            self._jobs[number].seconds,
            self.starts[number],
            self._widths[number],
        )
        first = len(starts)
        if self._endless:
            starts += [now] * len(seconds)
            return first, [now + one for one in seconds]
        busy = self._busy
        idle = min(self._idle // width, len(seconds) - first)
        self._idle -= idle * width
        starts += [now] * idle
        ends = [now + one for one in seconds[first : first + idle]]
        for end in ends:
            for _ in range(width):
                heappush(busy, end)
        if limit > now:
            for one in seconds[first + idle :]:
                start = busy[0]
                if start >= limit:
                    break
                end = start + one
                heapreplace(busy, end)
                starts.append(start)
                ends.append(end)
        return first, ends

    def _deal_paired(
        self, paired: _Paired, number: int, now: float, limit: float
    ) -> tuple[Sequence[int], list[float]]:
        """Start elements whose namesakes have ended; return their positions, and the ends."""
        seconds, starts, width = (
            self._jobs[number].seconds,
            self.starts[number],
            self._widths[number],
        )
        busy = self._busy
        positions: list[int] = []
        ends: list[float] = []
        while True:
            fits = self._idle >= width
            start = now if fits else busy[0]
            at = paired.next(start) if fits or start < limit else None
            if at is None:
                return positions, ends
            end = start + seconds[at]
            if not fits:
                heapreplace(busy, end)
            elif not self._endless:
                self._idle -= width
                for _ in range(width):
                    heappush(busy, end)
            starts[at] = start
            positions.append(at)
            ends.append(end)

    def _know(self, number: int, end: float) -> None:
        """Record the end of one of a job's waits."""
        self._unknown[number] -= 1
        self._from[number] = max(self._from[number], end)
        if number in self._paired:
            self._await(number)
        elif not self._unknown[number]:
            heappush(self._soon, (self._from[number], number))

    def _await(self, number: int) -> None:
        """Record when the next element of a paired job may start, if that is news."""
        paired = self._paired[number]
        if paired.soon and not self._unknown[number]:
            soonest = max(paired.soon[0][0], self._from[number])
            if soonest < paired.awaited:
                paired.awaited = soonest
                heappush(self._soon, (soonest, number))


class _Paired:
    """The elements of a job that waits for each of others: when each of them may start."""

    def __init__(self, job: Job, above: Mapping[int, Job], window: int | None) -> None:
        count = len(job.seconds)
        self.left = count  # elements that have not started
        self.soon: list[tuple[float, int]] = []  # a heap: from when one may start, and which
        self.ready: list[int] = []  # a heap: those that may start now
        self.awaited = inf  # the time by which the simulation will admit the job; -inf: it has
        self._edge = count if window is None else window  # the first element beyond the window
        self._missing = [len(above)] * count  # namesakes whose ends are unknown
        self._from = [0.0] * count
        self._namesakes: dict[int, Mapping[int, int]] = {}  # job → its position → ours
        self._nameless: dict[int, list[int]] = {}  # job → positions without a namesake there
        own = {index: position for position, index in enumerate(job.indices)}
        for number, other in above.items():
            theirs = enumerate(other.indices)
            same = {at: own[index] for at, index in theirs if index in own}
            self._namesakes[number] = same
            self._nameless[number] = sorted(set(range(count)) - set(same.values()))

    def admit(self) -> bool:
        """Return whether this is news: the job is not among the ready ones yet."""
        news = self.awaited > -inf and self.left > 0
        self.awaited = -inf
        return news

    def know(self, above: int, positions: Sequence[int], ends: Sequence[float]) -> None:
        """Record when elements of a job above end."""
        same = self._namesakes[above]
        for position, end in zip(positions, ends, strict=True):
            if (mine := same.get(position)) is not None:
                self._less(mine, end)

    def know_end(self, above: int, end: float) -> None:
        """Record when the whole of a job above ends."""
        for mine in self._nameless[above]:
            self._less(mine, end)

    def _less(self, position: int, end: float) -> None:
        self._missing[position] -= 1
        self._from[position] = max(self._from[position], end)
        if not self._missing[position] and position < self._edge:
            heappush(self.soon, (self._from[position], position))

    def next(self, now: float) -> int | None:
        """Take the first element that may start now, if any; this moves the window on."""
        while self.soon and self.soon[0][0] <= now:
            heappush(self.ready, heappop(self.soon)[1])
        if not self.ready:
            return None
        position = heappop(self.ready)
        self.left -= 1
        if self._edge < len(self._missing):
            if not self._missing[self._edge]:
                heappush(self.soon, (self._from[self._edge], self._edge))
            self._edge += 1
        return position
