"""How the layers of a graph are cut into parts: an order of blocks, and cuts in it.

See `hpcpipe.planner.search.search`, which searches for the cuts that cost little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

_HASTE = 0.25  # of the changes, those of the order of submission
_PART = 0.15  # of the longest path, by which an array is usually made more or less urgent


@dataclass(frozen=True, eq=False)
class Partition:
    """Where each layer is cut.

    ``order`` is that of the blocks of the line of this number; ``at`` holds for every layer the
    places in it, ascending, before which the layer is cut. An array is submitted as if it were
    more urgent by the sum of what ``haste`` has for its cells, in parts of the longest path.
    """

    ordering: int
    order: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]
    haste: Mapping[int, float] = field(default_factory=dict)


def changed(partition: Partition, depths: Sequence[int], cells: int, dice: Random) -> Partition:
    """Change cuts at random: shift, drop or add one, in a layer or a range of depths; move blocks;
    or submit an array earlier or later.

    ``depths`` are those of the layers; ``cells`` is how many there are, 0 to keep the order.
    """
    if cells and dice.random() < _HASTE:
        return replace(partition, haste=_hurried(partition.haste, cells, dice))
    what = dice.random()
    used = sorted({place for at in partition.at for place in at})
    if what < 0.3 and used:
        return replace(partition, at=_shifted(partition, used, dice))
    if what < 0.45 and used:
        return replace(partition, at=_dropped(partition, used, dice))
    if what < 0.7 and used:
        return replace(partition, order=_moved(partition.order, used, dice))
    return replace(partition, at=_added(partition, used, depths, dice))


def _hurried(haste: Mapping[int, float], cells: int, dice: Random) -> dict[int, float]:
    """Make the array of a cell more or less urgent; or as urgent as it was without this."""
    if haste and dice.random() < 0.3:
        dropped = dice.choice(list(haste))
        return {cell: part for cell, part in haste.items() if cell != dropped}
    return {**haste, dice.randrange(cells): dice.gauss(0, _PART)}


def _moved(order: tuple[int, ...], used: Sequence[int], dice: Random) -> tuple[int, ...]:
    """Exchange two blocks, or move one or a few elsewhere; what lies between moves up."""
    blocks = list(order)
    first, second = dice.randrange(len(order)), dice.randrange(len(order))
    if dice.random() < 0.5:
        blocks[first], blocks[second] = blocks[second], blocks[first]
        return tuple(blocks)
    if dice.random() < 0.5:  # next to a cut, from where it may be taken on either side
        second = min(dice.choice(used), len(order) - 1)
    few = blocks[first : first + dice.choice((1, 1, 2, 3))]
    del blocks[first : first + len(few)]
    return (*blocks[:second], *few, *blocks[second:])


def _shifted(
    partition: Partition, used: Sequence[int], dice: Random
) -> tuple[tuple[int, ...], ...]:
    old = dice.choice(used)
    new = old + dice.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    new = max(1, min(len(partition.order) - 1, new))
    return tuple(
        tuple(sorted({new if place == old else place for place in at})) for at in partition.at
    )


def _dropped(
    partition: Partition, used: Sequence[int], dice: Random
) -> tuple[tuple[int, ...], ...]:
    old = dice.choice(used)
    having = [layer for layer, at in enumerate(partition.at) if old in at]
    chosen = having if dice.random() < 0.4 else [dice.choice(having)]
    return tuple(
        tuple(place for place in at if place != old) if layer in chosen else at
        for layer, at in enumerate(partition.at)
    )


def _added(
    partition: Partition, used: Sequence[int], depths: Sequence[int], dice: Random
) -> tuple[tuple[int, ...], ...]:
    """Add a cut; often in a range of depths, and often in exchange for another one."""
    if len(partition.order) < 2:
        return partition.at
    layers = [set(at) for at in partition.at]
    again = used and dice.random() < 0.4
    new = dice.choice(used) if again else dice.randrange(1, len(partition.order))
    here = dice.randrange(len(layers))
    ends = depths[here], depths[dice.randrange(len(layers))]
    several = dice.random() < 0.6
    for layer, at in enumerate(layers):
        if layer == here or (several and min(ends) <= depths[layer] <= max(ends)):
            at.add(new)
    if used and dice.random() < 0.5:
        old = dice.choice(used)
        for at in layers:
            if dice.random() < 0.7:
                at.discard(old)
    return tuple(tuple(sorted(at)) for at in layers)
