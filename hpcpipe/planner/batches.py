"""Tasks become arrays: the fewest submissions whose dependencies the scheduler itself can keep.

No scheduler is named here, only `Capabilities`. There are two ways:

* a regular workflow, in which one mapping over axes says what waits for what, has few arrays that
  keep its dependencies exactly: see `hpcpipe.planner.exact`;
* where there are none within the site's ``limits.calls``, or elements hold several tasks, arrays
  that wait for more than they need are searched for, such that it costs little time: see
  `hpcpipe.planner.coarse`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil

from hpcpipe.model import Capabilities, Resources
from hpcpipe.plan import RUN, Plan
from hpcpipe.planner.arrays import make_batch
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.coarse import coarsen
from hpcpipe.planner.elements import Elements, join, read_tasks
from hpcpipe.planner.exact import make_exact

_LARGE = 300_000  # tasks of which a regular workflow is not searched
_TINY = 100  # elements in an array, below which elements may have to hold several tasks


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
    least = _least_pack(plan, size, limits)

    def pack(asked: Resources) -> int:
        return limits.pack_of(asked, least)

    exact: tuple[Batch, ...] = ()
    if not plan.irregular and all(pack(plan.asked(node)) == 1 for node in plan.nodes.values()):
        exact = make_exact(plan, capabilities, limits)
        # Where there are many nodes, tasks of several may share an array.
        few = min(len(exact), len(plan.nodes)) <= limits.coarse_calls
        if plan.count(RUN) > _LARGE:
            return exact
        if _relaxed(exact) or len(exact) > max(limits.calls, _forced(plan, size)):
            exact = ()
        elif few:
            return exact
    calls = min(limits.coarse_calls, limits.calls)
    with _uncollected():
        graph = _elements(plan, seconds(), pack, limits.lanes_of)
        if not len(graph):
            return ()
        arrays = coarsen(
            graph, capabilities, size, calls=calls, slack=limits.slack, cores=limits.cores
        )
        batches = tuple(make_batch(graph, one, capabilities) for one in arrays)
    # Many exact arrays are better than few that wait for more, but for others as exact.
    return exact if exact and _relaxed(batches) else batches


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
    plan: Plan,
    seconds: Mapping[str, Sequence[float]],
    pack: Callable[[Resources], int],
    lanes: Callable[[Resources], int],
) -> Elements:
    """Make elements of what has to run; chains of tasks are one, where that costs no time.

    An element that is longer than its like keeps all waiting that waits for the whole of them.
    """
    singles = read_tasks(plan, seconds)
    fused = join(singles, fuse=True, pack=pack, lanes=lanes)
    if not any(len(tasks) > 1 for tasks in fused.tasks):
        return fused
    single = join(singles, pack=pack, lanes=lanes)
    return fused if _by_level(fused) <= 1.01 * _by_level(single) else single


def _by_level(graph: Elements) -> float:
    """Say how long it takes if all of one depth wait for all of the one above, in seconds."""
    longest: dict[int, float] = {}
    for depth, seconds in zip(graph.depth, graph.seconds, strict=True):
        longest[depth] = max(seconds, longest.get(depth, 0.0))
    return sum(longest.values())


def _forced(plan: Plan, size: int) -> int:
    """Count the arrays that it takes because of their size."""
    return sum(ceil(node.fates.count(RUN) / size) for node in plan.nodes.values())


def _relaxed(batches: Sequence[Batch]) -> bool:
    """Tell whether any batch waits for more than it needs."""
    return any(wait.relaxed for batch in batches for wait in batch.waits)


def _least_pack(plan: Plan, size: int, limits: Limits) -> int:
    """Say how many tasks an element has to run for all of them to be within the site's limits.

    Calls count where arrays are refused or tiny: elsewhere they only make dependencies relaxed.
    """
    most = [limits.elements] if limits.elements else []
    if size < _TINY:
        most.append(size * limits.calls)
    sizes = [count for node in plan.nodes.values() if (count := node.fates.count(RUN))]
    if not most or sum(sizes) <= min(most):
        return 1
    fits = range(ceil(sum(sizes) / min(most)), max(sizes) + 1)
    return next((n for n in fits if sum(ceil(one / n) for one in sizes) <= min(most)), max(sizes))
