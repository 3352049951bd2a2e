"""Tasks become arrays: the fewest submissions whose dependencies the scheduler itself can keep.

No scheduler is named here, only `Capabilities`. There are two ways:

* a regular workflow, whose dependencies are mappings over axes, has few arrays that
  keep its dependencies exactly: see `hpcpipe.planner.regular`;
* where there are none within the site's ``limits.calls``, or elements hold several tasks, arrays
  that wait for more than they need are searched for, such that it costs little time: see
  `hpcpipe.planner.search.search`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil

from hpcpipe.jobs import Capabilities
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.plan import Plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.element_graph import Elements, join, read_tasks
from hpcpipe.planner.layout import make_batch
from hpcpipe.planner.regular import make_exact
from hpcpipe.planner.search.search import coarsen, likely_cores
from hpcpipe.planner.search.unknown_times import is_sturdy

_LARGE = 300_000  # tasks of which a regular workflow is not searched
_CALLS = 20  # of a plan that is searched for
_SMALL = 500  # tasks below which dependencies are worth more calls: each is of few tasks
_SMALL_CALLS = 40


def make_batches(
    plan: Plan,
    capabilities: Capabilities,
    limits: Limits,
    seconds: Callable[[], Mapping[str, Sequence[float]]] = dict,
) -> tuple[Batch, ...]:
    """Compile a plan into batches, upstream ones first.

    ``seconds`` gives run times by node, as far as known; it is asked only where they matter, since
    arrays are searched for.
    """
    size = limits.array_size if capabilities.arrays and limits.array_size else 1
    count = plan.count(RUN)
    calls = limits.search_calls or (_SMALL_CALLS if count <= _SMALL else _CALLS)
    exact: tuple[Batch, ...] = ()
    if not plan.irregular and all(
        limits.pack_of(plan.asked(node)) == 1 for node in plan.nodes.values()
    ):
        exact = make_exact(plan, capabilities, limits)
        # Where there are many nodes, tasks of several may share an array.
        few = min(len(exact), len(plan.nodes)) <= calls
        if count > _LARGE:
            return exact
        if _relaxed(exact) or len(exact) > max(limits.calls, _forced(plan, size)):
            exact = ()
        elif few:
            return exact
    with _uncollected():
        batches = _search(plan, capabilities, limits, size, min(calls, limits.calls), seconds())
    # Many exact arrays are better than few that wait for more, but for others as exact.
    return exact if exact and _relaxed(batches) else batches


def _search(
    plan: Plan,
    can: Capabilities,
    limits: Limits,
    size: int,
    calls: int,
    seconds: Mapping[str, Sequence[float]],
) -> tuple[Batch, ...]:
    graph = _elements(plan, seconds, can, limits)
    if not len(graph):
        return ()
    arrays = coarsen(graph, can, size, calls=calls, slack=limits.slack, cores=limits.cores)
    if not seconds:
        plain = coarsen(graph, can, size, calls=1)
        cores = [limits.cores] if limits.cores else likely_cores(graph, (0.4, 1.0, 2.3))
        if not is_sturdy(graph, arrays, plain, cores, can):
            arrays = plain
    return tuple(make_batch(graph, one, can) for one in arrays)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause Python's search for garbage, which would walk a growing graph again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _elements(
    plan: Plan, seconds: Mapping[str, Sequence[float]], can: Capabilities, limits: Limits
) -> Elements:
    """Make elements of what has to run; chains of tasks are one, where that costs no time.

    An element that is longer than its siblings delays all that waits for the whole of them; so
    nothing is fused that need not be where no run times are known. Packed, chains of different
    nodes may be more elements than tasks are.
    """
    singles = read_tasks(plan, seconds)
    single = join(singles, pack=limits.pack_of, lanes=limits.lanes_of)
    pairs = can.elementwise and can.sparse and can.subset  # any chains, as well as fusing does
    packed = len(single) < len(singles.tasks)
    if not seconds and pairs and not packed and not limits.untimed:
        return single
    fused = join(singles, fuse=True, pack=limits.pack_of, lanes=limits.lanes_of)
    few = len(fused) <= len(single)
    return fused if few and _by_level(fused) <= 1.01 * _by_level(single) else single


def _by_level(graph: Elements) -> float:
    """Return the makespan in seconds if all of one depth wait for all of the one above."""
    longest: dict[int, float] = {}
    for depth, seconds in zip(graph.depth, graph.seconds, strict=True):
        longest[depth] = max(seconds, longest.get(depth, 0.0))
    return sum(longest.values())


def _forced(plan: Plan, size: int) -> int:
    """Count the arrays that it takes because of their size."""
    return sum(ceil(node.fates.count(RUN) / size) for node in plan.nodes.values())


def _relaxed(batches: Sequence[Batch]) -> bool:
    """Return whether any batch waits for more than it needs."""
    return any(wait.relaxed for batch in batches for wait in batch.waits)
