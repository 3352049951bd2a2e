"""Tasks become arrays: the fewest submissions whose dependencies the scheduler itself can keep.

No scheduler is named here, only `Capabilities`. There are two ways:

* a regular workflow, in which one mapping over axes says what waits for what, has few arrays that
  keep its dependencies exactly: see `hpcpipe.exact`;
* where there are none within the site's ``limits.calls``, or elements hold several tasks, arrays
  that wait for more than they need are searched for, such that it costs little time: see
  `hpcpipe.coarse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from hpcpipe.arrays import make_batch
from hpcpipe.batch import Batch, Limits
from hpcpipe.coarse import coarsen
from hpcpipe.elements import make_elements
from hpcpipe.exact import make_exact
from hpcpipe.model import Capabilities
from hpcpipe.plan import RUN, Plan

_LARGE = 300_000  # tasks of which a regular workflow is not searched
_TINY = 100  # elements in an array, below which elements may have to hold several tasks


def make_batches(
    plan: Plan,
    capabilities: Capabilities,
    limits: Limits,
    seconds: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Batch, ...]:
    """Compile a plan into batches, upstream ones first.

    ``seconds`` are run times by node, as far as known. They matter where arrays are searched for.
    """
    pack = _pack(plan, capabilities, limits)
    if not plan.irregular and not plan.packs and pack == 1:
        batches = make_exact(plan, capabilities, limits)
        relaxed = any(wait.relaxed for batch in batches for wait in batch.waits)
        if not relaxed or plan.count(RUN) > _LARGE:
            return batches
    graph = make_elements(plan, seconds or {}, fuse=True, pack=pack)
    if not len(graph):
        return ()
    arrays = coarsen(
        graph,
        capabilities,
        _size(capabilities, limits),
        calls=min(limits.coarse_calls, limits.calls),
        slack=limits.slack,
        cores=limits.cores,
    ).arrays
    return tuple(make_batch(graph, one, capabilities) for one in arrays)


def _size(can: Capabilities, limits: Limits) -> int:
    return limits.array_size if can.arrays and limits.array_size else 1


def _pack(plan: Plan, can: Capabilities, limits: Limits) -> int:
    """Say how many tasks an element has to run where arrays are refused or tiny, and calls few."""
    size = _size(can, limits)
    return max(1, ceil(plan.count(RUN) / (size * limits.calls))) if size < _TINY else 1
