"""What no plan need beat: a call an element, every dependency exact, the longest way down first."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from hpcpipe.planner.elements import Elements
from hpcpipe.planner.simulate import Job, simulate


def exact_jobs(graph: Elements) -> list[Job]:
    """Give every element as a job of its own."""
    order, number = _ranked(graph)
    return [
        Job(
            [graph.seconds[element]],
            range(1),
            [number[parent] for parent in graph.parents[element]],
            cpus=graph.cpus[element],
        )
        for element in order
    ]


def exact_makespans(graph: Elements, cores: Sequence[int]) -> list[float]:
    """Give the makespan of `exact_jobs` on each number of cores, as `simulate` would.

    Raises UsageError where an element asks for more cores than there are.
    """
    sizes = set(graph.cpus)
    if len(sizes) != 1 or max(sizes) > min(cores):  # who fits where is another matter
        jobs = exact_jobs(graph)
        return [simulate(jobs, count).makespan for count in cores]
    order, number = _ranked(graph)
    seconds = [graph.seconds[element] for element in order]
    children = [[number[child] for child in graph.children[element]] for element in order]
    parents = [len(graph.parents[element]) for element in order]
    return [_deal(seconds, children, parents, count // max(sizes)) for count in cores]


def _ranked(graph: Elements) -> tuple[list[int], list[int]]:
    """Give the elements in the order of preference, and the place of each in it."""
    order = sorted(graph.order, key=lambda element: -graph.below[element])
    number = [0] * len(order)
    for at, element in enumerate(order):
        number[element] = at
    return order, number


def _deal(
    seconds: Sequence[float], children: Sequence[Sequence[int]], parents: Sequence[int], slots: int
) -> float:
    """Give the makespan of elements that are numbered in the order of preference."""
    left = list(parents)  # that have not ended
    ready = [element for element, count in enumerate(left) if not count]  # a heap: it ascends
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        for _ in range(min(len(ready), slots - len(running))):
            element = heappop(ready)
            heappush(running, (now + seconds[element], element))
        now = running[0][0]
        while running and running[0][0] == now:
            for child in children[heappop(running)[1]]:
                left[child] -= 1
                if not left[child]:
                    heappush(ready, child)
    return now
