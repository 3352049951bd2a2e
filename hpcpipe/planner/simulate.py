"""A discrete-event simulator of batch schedulers: when each element would start, and the makespan.

It knows the rules that schedulers have in common, and no scheduler's name:

* jobs are looked at in the order in which they were submitted, elements in that of their indices;
  whatever is ready and fits in the free cores starts;
* an element whose job waits for *all* of another starts after every element of that has ended;
* one that waits for *each* starts after its namesake, the element of the same index; where there
  is no namesake, after all of them (as Slurm 22.05 and Grid Engine 8.1.9 were seen to do);
* of a job that goes along with another element by element, only the ``window`` lowest elements
  that have not started are looked at, where the scheduler has such a window (Slurm's
  ``correspond_after_task_cnt``).

Every element ends well here; memory and other limits are left out.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from hpcpipe.errors import UsageError


@dataclass(frozen=True, eq=False)
class Job:
    """One submission: the seconds of its elements in the order of their indices, and what it needs.

    ``all`` and ``each`` are numbers of earlier jobs; ``elements`` are single elements of such, as
    pairs of a job and a position in it.
    """

    seconds: Sequence[float]
    indices: Sequence[int]
    all: Sequence[int] = ()
    each: Sequence[int] = ()
    elements: Sequence[tuple[int, int]] = ()
    cpus: int = 1


@dataclass(frozen=True, eq=False)
class Simulated:
    """How it went: the makespan in seconds, and each element's start, job after job."""

    makespan: float
    starts: array[float]
    core_seconds: float  # in which elements ran


def simulate(
    jobs: Sequence[Job], cores: int, *, window: int | None = None, latency: float = 0.0
) -> Simulated:
    """Run jobs on so many cores; ``latency`` is added to every element.

    Raises UsageError where an element asks for more cores than there are.
    """
    for job in jobs:
        if job.cpus > cores:
            raise UsageError(f"an element asks for {job.cpus} cores, and there are {cores}")
    return _Simulation(jobs, cores, window, latency).run()


class _Simulation:
    """The state of a simulation; elements are numbered through, in the order of preference."""

    def __init__(self, jobs: Sequence[Job], cores: int, window: int | None, latency: float) -> None:
        self._jobs = jobs
        self._cores = cores
        self._window = window
        self._first = [0]  # number of each job's first element
        self._of: list[int] = []  # job of each element
        self._seconds: list[float] = []
        for number, job in enumerate(jobs):
            self._of += [number] * len(job.seconds)
            self._seconds += [s + latency for s in job.seconds] if latency else job.seconds
            self._first.append(len(self._of))
        self._left = [len(job.seconds) for job in jobs]  # elements that have not ended
        self._wants = [len(job.all) + len(job.elements) for job in jobs]  # before any may start
        self._needs: dict[int, int] = {}  # namesakes an element still waits for
        self._after_job: list[list[int]] = [[] for _ in jobs]  # job → jobs
        self._after_whole: list[list[int]] = [[] for _ in jobs]  # job → elements
        self._after: dict[int, list[int]] = defaultdict(list)  # element → elements
        self._after_one: dict[int, list[int]] = defaultdict(list)  # element → jobs
        self._edge: dict[int, int] = {}  # job with a window → the first element beyond it
        self._watched = bytearray(len(jobs))  # whether anything waits for elements of a job
        for number, job in enumerate(jobs):
            self._link(number, job)
        self._ready: dict[int, list[int]] = {job.cpus: [] for job in jobs}

    def _link(self, number: int, job: Job) -> None:
        for above in job.all:
            self._after_job[above].append(number)
        for above, position in job.elements:
            self._after_one[self._first[above] + position].append(number)
            self._watched[above] = True
        if not job.each:
            return
        first = self._first[number]
        if self._window is not None:
            self._edge[number] = first + self._window
        for above in job.each:
            base, theirs = self._first[above], self._jobs[above].indices
            same = theirs == job.indices or list(theirs) == list(job.indices)
            at = None if same else {index: base + e for e, index in enumerate(theirs)}
            self._watched[above] = True
            for element, index in enumerate(job.indices, first):
                namesake = base + element - first if at is None else at.get(index)
                if namesake is None:
                    self._after_whole[above].append(element)
                else:
                    self._after[namesake].append(element)
                self._needs[element] = self._needs.get(element, 0) + 1

    def run(self) -> Simulated:
        """Let time pass until all have ended."""
        seconds, of, ready, left = self._seconds, self._of, self._ready, self._left
        watched, edges = self._watched, self._edge
        starts = array("d", bytes(8 * len(of)))
        running: list[tuple[float, int]] = []
        now, free, busy = 0.0, self._cores, 0.0
        for number, wants in enumerate(self._wants):
            if not wants:
                self._open(number)
        one = next(iter(ready)) if len(ready) == 1 else None
        heap = ready[one] if one is not None else []
        while True:
            while True:
                cpus = one if one is not None else self._next(free)
                if cpus is None or cpus > free:
                    break
                if one is None:
                    heap = ready[cpus]
                elif not heap:
                    break
                element = heappop(heap)
                starts[element] = now
                heappush(running, (now + seconds[element], element))
                free -= cpus
                busy += cpus * seconds[element]
                if edges:
                    self._slide(of[element])
            if not running:
                break
            now = running[0][0]
            while running and running[0][0] == now:
                element = heappop(running)[1]
                number = of[element]
                free += self._jobs[number].cpus if one is None else one
                if watched[number]:
                    self._end_one(element)
                left[number] -= 1
                if not left[number]:
                    self._end(number)
        if any(left):
            raise AssertionError("some elements could never start")  # a planner's mistake
        return Simulated(now, starts, busy)

    def _next(self, free: int) -> int | None:
        """Give the size of the ready element that comes first among those that fit."""
        first: int | None = None
        chosen = None
        for cpus, heap in self._ready.items():
            if heap and cpus <= free and (first is None or heap[0] < first):
                first, chosen = heap[0], cpus
        return chosen

    def _open(self, number: int) -> None:
        """Let a job's elements start that wait for no namesake."""
        first, last = self._first[number], self._first[number + 1]
        heap = self._ready[self._jobs[number].cpus]
        if not self._jobs[number].each:
            if not heap:
                heap.extend(range(first, last))  # ascending numbers are a heap already
            elif last - first < 8 or last - first < len(heap) // 8:
                for element in range(first, last):
                    heappush(heap, element)
            else:
                heap.extend(range(first, last))
                heapify(heap)
            return
        for element in range(first, min(last, self._edge.get(number, last))):
            if not self._needs[element]:
                heappush(heap, element)

    def _slide(self, number: int) -> None:
        """Move a job's window on by one, as one of its elements has started."""
        edge = self._edge.get(number)
        if edge is not None and edge < self._first[number + 1]:
            self._edge[number] = edge + 1
            if not self._needs[edge]:
                heappush(self._ready[self._jobs[number].cpus], edge)

    def _end_one(self, element: int) -> None:
        """Tell those that wait for one element that it has ended."""
        for below in self._after.get(element, ()):
            self._less(below)
        for job in self._after_one.get(element, ()):
            self._want_less(job)

    def _end(self, number: int) -> None:
        """Tell those that wait for the whole of a job that it has ended."""
        for below in self._after_whole[number]:
            self._less(below)
        for job in self._after_job[number]:
            self._want_less(job)

    def _less(self, element: int) -> None:
        """Take note that one of the namesakes of an element has ended."""
        self._needs[element] -= 1
        number = self._of[element]
        if not self._needs[element] and not self._wants[number]:
            edge = self._edge.get(number)
            if edge is None or element < edge:
                heappush(self._ready[self._jobs[number].cpus], element)

    def _want_less(self, number: int) -> None:
        self._wants[number] -= 1
        if not self._wants[number]:
            self._open(number)
