"""The reference schedule: one job per element, exact dependencies, longest path first."""

from __future__ import annotations

from collections.abc import Sequence

from hpcpipe.planner.batch import Wait
from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.simulate import Job, makespan, simulate


def exact_jobs(graph: Elements) -> list[Job]:
    """Return every element as a job of its own."""
    order = _in_order(graph)
    number = [0] * len(order)
    for at, element in enumerate(order):
        number[element] = at
    return [
        Job(
            [graph.seconds[element]],
            range(1),
            [Wait(number[parent]) for parent in graph.parents[element]],
            graph.cpus[element],
        )
        for element in order
    ]


def exact_makespans(graph: Elements, cores: Sequence[int]) -> list[float]:
    """Return the makespan of `exact_jobs` on each number of cores.

    Raises UsageError where an element asks for more cores than there are.
    """
    jobs = exact_jobs(graph)
    return [makespan(jobs, count) for count in cores]


def exact_starts(graph: Elements, cores: int) -> list[float]:
    """Return when each element starts in the reference schedule on a number of cores."""
    starts = [0.0] * len(graph)
    begun = simulate(exact_jobs(graph), cores).starts
    for element, start in zip(_in_order(graph), begun, strict=True):
        starts[element] = start
    return starts


def _in_order(graph: Elements) -> list[int]:
    return sorted(graph.order, key=lambda element: -graph.below[element])
