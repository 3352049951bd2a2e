"""What a plan is thought to come to: its makespan on so many cores, and what its waits cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hpcpipe.model import Capabilities
from hpcpipe.plan import Plan
from hpcpipe.planner.batch import Batch, Standing
from hpcpipe.planner.coarse import likely_cores
from hpcpipe.planner.elements import Elements, make_elements
from hpcpipe.planner.simulate import Job, simulate
from hpcpipe.planner.yardstick import exact_makespans

_LARGE = 300_000  # tasks whose exact dependencies are not simulated for comparison


Basis = Literal["known", "asked", "equal"]


@dataclass(frozen=True)
class Prediction:
    """How a plan would go on so many cores; times in seconds.

    ``exact`` is the makespan with a call for every task, the longest path first, where it was
    worked out. ``basis`` says what run times it rests on: those known of at least some nodes;
    where none are, the time that is asked for; or else all tasks count as one second.
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
    """Simulate batches on so many cores; ``seconds`` are run times by node, as far as known.

    Without ``cores``, on so many as the graph keeps busy in the mean. Jobs of earlier submissions
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


def jobs_of(batches: Sequence[Batch], graph: Elements) -> list[Job]:
    """Give batches as the simulator takes them; the graph has each task as an element."""
    took = {one: s for tasks, s in zip(graph.tasks, graph.seconds, strict=True) for one in tasks}
    number = {node.node.name: at for at, node in enumerate(graph.nodes)}
    return [_job(batch, batches, number, took) for batch in batches]


def _job(
    batch: Batch,
    batches: Sequence[Batch],
    number: Mapping[str, int],
    took: Mapping[tuple[int, int], float],
) -> Job:
    tasks = [took[number[node.node.name], task] for node, task in batch.members()]
    if batch.starts is not None:
        tasks = [batch.span(tasks[first:last]) for first, last in pairwise(batch.starts)]
    whole, each, elements = [], [], []
    for wait in batch.waits:
        if isinstance(wait.on, Standing):
            continue
        if wait.kind == "each":
            each.append(wait.on)
        elif wait.element is None:
            whole.append(wait.on)
        else:
            indices = batches[wait.on].indices
            elements.append((wait.on, 0 if indices is None else indices.index(wait.element)))
    return Job(tasks, batch.indices or (0,), whole, each, elements, batch.cpus)
