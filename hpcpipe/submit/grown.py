"""A plan grown as far as its results on disk say how many tasks nodes have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from hpcpipe.keys.grow import grow
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.plan import Frozen, NodeRecord
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.retry import Chosen, forced


def grown(plan: Frozen, rundir: RunDir, chosen: Chosen | None = None) -> Frozen:
    """Grow a plan by the lists that its tasks have returned, unless these are to run again."""
    again = {*forced(chosen, plan)}
    return grow(plan, partial(_lengths, Store(rundir), {}, again))


def _lengths(
    store: Store,
    listings: dict[str, Listing],
    again: set[tuple[str, str]],
    node: NodeRecord,
    select: tuple[Any, ...],
) -> Mapping[int, int]:
    listing = listings.get(node.name) or listings.setdefault(
        node.name, store.has([node.name])[node.name]
    )
    found = {}
    for index in range(len(node)):
        key = node.key(index)
        if key in listing.succeeded and (node.name, key) not in again:
            length = store.measure(node.name, key, listing.packed, select)
            if length is not None:
                found[index] = length
    return found
