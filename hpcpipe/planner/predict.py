"""The predicted makespan of a plan on a number of cores, and what its waits cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Literal

from hpcpipe.jobs import Capabilities
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.plan import Plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.compile import make_batches
from hpcpipe.planner.element_graph import Elements, make_elements
from hpcpipe.planner.search.baseline import exact_makespans
from hpcpipe.planner.search.search import likely_cores
from hpcpipe.planner.simulate import Job, simulate

_LARGE = 300_000  # tasks whose exact dependencies are not simulated for comparison
_TRADED = 20_000  # tasks that are not planned again, as that takes long
_TRIED = (10, 20, 40, 80, 160)  # calls of which the trade is shown


Basis = Literal["known", "asked", "equal"]


@dataclass(frozen=True)
class Prediction:
    """How a plan would run on ``cores`` cores; times in seconds.

    ``exact`` is the makespan with a call for every task, the longest path first, where it was
    simulated. ``basis`` names the run times used: those known of at least some nodes;
    else the requested time; or else all tasks count as one second.
    """

    cores: int
    makespan: float
    exact: float | None
    core_seconds: float
    basis: Basis

    @property
    def used(self) -> float:
        """The part of the cores' time in which they are in use."""
        return self.core_seconds / (self.cores * self.makespan) if self.makespan else 1.0

    @property
    def cost(self) -> float | None:
        """How much longer it takes than with exact dependencies: 0.02 is two per cent."""
        return self.makespan / self.exact - 1 if self.exact else None


def predict(
    plan: Plan,
    batches: Sequence[Batch],
    can: Capabilities,
    seconds: Mapping[str, Sequence[float]],
    cores: int | None = None,
) -> Prediction:
    """Simulate batches on ``cores``; ``seconds`` are run times by node, as far as known.

    Without ``cores``, on as many as the graph keeps busy on average. Jobs of earlier submissions
    are taken to have ended. Raises UsageError where a task asks for more cores than there are.
    """
    basis: Basis = "known" if seconds else "equal"
    asked = {name: plan.asked(node).time for name, node in plan.nodes.items()}
    if not seconds and all(asked.values()):
        seconds = {name: [asked[name] or 0] * len(n.fates) for name, n in plan.nodes.items()}
        basis = "asked"
    graph = make_elements(plan, seconds)
    jobs = jobs_of(batches, graph)
    cores = cores or max(*likely_cores(graph, (1.0,)), *(job.cpus for job in jobs))
    gone = simulate(jobs, cores, window=can.window)
    small = len(graph) <= _LARGE
    exact = exact_makespans(graph, [cores])[0] if small else None
    return Prediction(cores, gone.makespan, exact, gone.core_seconds, basis)


def trade(
    plan: Plan,
    can: Capabilities,
    limits: Limits,
    seconds: Mapping[str, Sequence[float]],
    cores: int,
) -> Iterator[tuple[int, int, float]]:
    """Plan with other limits of calls; of those that pay, yield the limit, calls and makespan."""
    if plan.count(RUN) > _TRADED:
        return
    best = inf
    for calls in _TRIED:
        allowed = replace(limits, calls=max(calls, limits.calls), search_calls=calls)
        batches = make_batches(plan, can, allowed, lambda: seconds)
        told = predict(plan, batches, can, seconds, cores).makespan
        if told < 0.99 * best:
            yield calls, len(batches), told
            best = told


def jobs_of(batches: Sequence[Batch], graph: Elements) -> list[Job]:
    """Convert batches to the simulator's jobs; the graph has each task as an element."""
    took = {one: s for tasks, s in zip(graph.tasks, graph.seconds, strict=True) for one in tasks}
    number = {node.node.name: at for at, node in enumerate(graph.nodes)}
    return [_job(batch, number, took) for batch in batches]


def _job(
    batch: Batch,
    number: Mapping[str, int],
    took: Mapping[tuple[int, int], float],
) -> Job:
    tasks = [took[number[node.node.name], task] for node, task in batch.members()]
    if batch.starts is not None:
        tasks = [batch.span(tasks[first:last]) for first, last in pairwise(batch.starts)]
    return Job(tasks, batch.indices or (0,), batch.waits, batch.cpus)
