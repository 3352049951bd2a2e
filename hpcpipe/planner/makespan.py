"""How long arrays would take: what the simulator says, for whoever asks thousands of times.

It keeps the rules of `hpcpipe.planner.simulate`, and goes from job to job where that goes from
element to element. All elements of a job that can start at once are dealt out in one loop, to
whichever core is free first, until a job before it in the order of preference can start some. When
the last element of a job has started, its end is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from math import inf
from operator import add

from hpcpipe.planner.simulate import Job, simulate


def makespan(jobs: Sequence[Job], cores: int, *, window: int | None = None) -> float:
    """Give the seconds that jobs take on so many cores; equals `simulate(…).makespan`.

    An element that goes along with a job must have its namesake there, as `arrays` lays it out.
    """
    sizes = {job.cpus for job in jobs}
    if len(sizes) != 1 or max(sizes) > cores:  # who fits where is another matter
        return simulate(jobs, cores, window=window).makespan
    slots = cores // max(sizes)
    if slots >= sum(len(job.seconds) for job in jobs):
        return _unlimited(jobs, window)
    return _Run(jobs, slots, window).run()


def _unlimited(jobs: Sequence[Job], window: int | None) -> float:
    """Give the makespan where whatever may start finds a core."""
    ends: list[float] = []
    each_end: dict[int, Sequence[float]] = {}
    watched = {above for job in jobs for above in (*job.each, *(one for one, _ in job.elements))}
    for number, job in enumerate(jobs):
        first = max([ends[above] for above in job.all], default=0.0)
        for above, position in job.elements:
            first = max(first, each_end[above][position])
        if job.each:
            starts = _starts_along(job, first, jobs, each_end, window)
        elif number in watched:
            starts = [first] * len(job.seconds)
        else:
            ends.append(first + max(job.seconds))
            continue
        each_end[number] = list(map(add, starts, job.seconds))
        ends.append(max(each_end[number]))
    return max(ends, default=0.0)


def _starts_along(
    job: Job,
    first: float,
    jobs: Sequence[Job],
    ends: Mapping[int, Sequence[float]],
    window: int | None,
) -> list[float]:
    """Say when elements start that wait for their namesakes, and to come into the window."""
    starts = [first] * len(job.seconds)
    for above in job.each:
        end_of = dict(zip(jobs[above].indices, ends[above], strict=True))
        starts = [max(s, end_of[index]) for s, index in zip(starts, job.indices, strict=True)]
    if window is None:
        return starts
    started: list[float] = []  # of the elements before, the starts that moved no window on yet
    for at, start in enumerate(starts):
        if at >= window:
            starts[at] = start = max(start, heappop(started))
        heappush(started, start)
    return starts


class _Run:
    def __init__(self, jobs: Sequence[Job], slots: int, window: int | None) -> None:
        count = len(jobs)
        self._jobs, self._window = jobs, window
        self._free = [0.0] * slots
        self._from = [0.0] * count  # when a job may start, as far as is known
        self._unknown = [len(job.all) + len(job.elements) for job in jobs]  # ends still unknown
        self._after: list[list[int]] = [[] for _ in jobs]  # job → jobs
        self._after_one: dict[int, list[tuple[int, int]]] = {}  # job → positions and jobs
        self._along: dict[int, list[int]] = {}  # job → jobs that go along with it
        self._streams: dict[int, _Stream] = {}
        for number, job in enumerate(jobs):
            for above in job.all:
                self._after[above].append(number)
            for above, position in job.elements:
                self._after_one.setdefault(above, []).append((position, number))
            for above in job.each:
                self._along.setdefault(above, []).append(number)
            if job.each:
                self._streams[number] = _Stream(number, jobs, window)
        self._watched = self._after_one.keys() | self._along.keys()

    def run(self) -> float:
        """Deal out elements, job after job."""
        jobs, free, starts_at, unknown = self._jobs, self._free, self._from, self._unknown
        streams, watched = self._streams, self._watched
        started = [0] * len(jobs)
        ends = [0.0] * len(jobs)
        waiting = list(range(len(jobs)))  # those with elements left, in the order of preference
        now = 0.0
        at: Sequence[int]
        while waiting:
            now = max(now, free[0])
            limit = inf  # until when those before this one can start nothing
            for number in waiting:
                if unknown[number]:
                    continue
                soonest = starts_at[number]
                if number in streams:
                    soonest = max(soonest, streams[number].soonest())
                if soonest <= now:
                    break
                limit = min(limit, soonest)
            else:
                if limit == inf:
                    raise AssertionError("some elements could never start")  # a planner's mistake
                now = limit
                continue
            seconds = jobs[number].seconds
            if number in streams:
                at, some = streams[number].deal(free, now, limit)
            elif number in watched:
                first = started[number]
                some = _deal(free, now, limit, seconds, first)
                at = range(first, first + len(some))
            else:
                started[number], end = _deal_out(free, now, limit, seconds, started[number])
                ends[number] = max(ends[number], end)
                at, some = range(0), []
            if some:
                started[number] += len(some)
                ends[number] = max(ends[number], *some)
                self._tell(number, at, some)
            if started[number] == len(seconds):
                waiting.remove(number)
                for below in self._after[number]:
                    self._know(below, ends[number])
        return max(ends, default=0.0)

    def _tell(self, number: int, at: Sequence[int], ends: Sequence[float]) -> None:
        """Tell who waits for single elements when these will have ended."""
        for below in self._along.get(number, ()):
            self._streams[below].know(number, at, ends)
        if number in self._after_one:
            found = dict(zip(at, ends, strict=True))
            for position, below in self._after_one[number]:
                if position in found:
                    self._know(below, found[position])

    def _know(self, number: int, end: float) -> None:
        self._unknown[number] -= 1
        self._from[number] = max(self._from[number], end)


def _deal_out(
    free: list[float], now: float, limit: float, seconds: Sequence[float], first: int
) -> tuple[int, float]:
    """Start elements from the first on, up to the limit; say which is next, and the last end."""
    last = 0.0
    at = first
    for at in range(first, len(seconds)):
        start = free[0]
        if start < now:
            start = now
        elif start >= limit:
            return at, last
        end = start + seconds[at]
        heapreplace(free, end)
        if end > last:
            last = end
    return len(seconds), last


def _deal(
    free: list[float], now: float, limit: float, seconds: Sequence[float], first: int
) -> list[float]:
    """Start elements from the first on, up to the limit; give their ends."""
    ends = []
    for at in range(first, len(seconds)):
        start = max(free[0], now)
        if start >= limit:
            break
        end = start + seconds[at]
        heapreplace(free, end)
        ends.append(end)
    return ends


class _Stream:
    """The elements of a job that goes along with others: when each of them could start."""

    def __init__(self, number: int, jobs: Sequence[Job], window: int | None) -> None:
        job = jobs[number]
        self._seconds = job.seconds
        self._edge = len(job.seconds) if window is None else window
        self._missing = [0] * len(job.seconds)
        self._from = [0.0] * len(job.seconds)
        self._soon: list[tuple[float, int]] = []  # within the window, and from when
        self._ready: list[int] = []
        own = {index: position for position, index in enumerate(job.indices)}
        self._same: dict[int, dict[int, int]] = {}  # job → its position → the namesake's
        for above in job.each:
            theirs = enumerate(jobs[above].indices)
            self._same[above] = {at: own[index] for at, index in theirs if index in own}
            for position in self._same[above].values():
                self._missing[position] += 1

    def know(self, above: int, at: Sequence[int], ends: Sequence[float]) -> None:
        """Take note when these elements of a job above will have ended."""
        same = self._same[above]
        for position, end in zip(at, ends, strict=True):
            mine = same.get(position)
            if mine is not None:
                self._missing[mine] -= 1
                self._from[mine] = max(self._from[mine], end)
                if not self._missing[mine] and mine < self._edge:
                    heappush(self._soon, (self._from[mine], mine))

    def soonest(self) -> float:
        """Say when the next element could start, as far as is known."""
        if self._ready:
            return 0.0
        return self._soon[0][0] if self._soon else inf

    def deal(self, free: list[float], now: float, limit: float) -> tuple[list[int], list[float]]:
        """Start elements up to the limit; give their positions and ends."""
        at, ends = [], []
        while (start := max(free[0], now)) < limit:
            while self._soon and self._soon[0][0] <= start:
                heappush(self._ready, heappop(self._soon)[1])
            if not self._ready:
                break
            element = heappop(self._ready)
            at.append(element)
            ends.append(start + self._seconds[element])
            heapreplace(free, ends[-1])
            if self._edge < len(self._seconds):
                if not self._missing[self._edge]:
                    heappush(self._soon, (self._from[self._edge], self._edge))
                self._edge += 1
        return at, ends
