"""How the layers of a graph are cut into parts: an order of blocks, and cuts in it.

See `hpcpipe.planner.coarse`, which searches for the cuts that cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Cuts:
    """Where each layer is cut.

    ``order`` is that of the blocks of the line of this number; ``at`` holds for every layer the
    places in it, ascending, before which the layer is cut.
    """

    line: int
    order: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]


def changed(cuts: Cuts, depths: Sequence[int], dice: Random) -> Cuts:
    """Change cuts at random: shift, drop or add one, in a layer or a range of depths; move blocks.

    ``depths`` are those of the layers.
    """
    what = dice.random()
    used = sorted({place for at in cuts.at for place in at})
    if what < 0.3 and used:
        return Cuts(cuts.line, cuts.order, _shifted(cuts, used, dice))
    if what < 0.45 and used:
        return Cuts(cuts.line, cuts.order, _dropped(cuts, used, dice))
    if what < 0.7 and used:
        return Cuts(cuts.line, _moved(cuts.order, used, dice), cuts.at)
    return Cuts(cuts.line, cuts.order, _added(cuts, used, depths, dice))


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


def _shifted(cuts: Cuts, used: Sequence[int], dice: Random) -> tuple[tuple[int, ...], ...]:
    old = dice.choice(used)
    new = old + dice.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    new = max(1, min(len(cuts.order) - 1, new))
    return tuple(tuple(sorted({new if place == old else place for place in at})) for at in cuts.at)


def _dropped(cuts: Cuts, used: Sequence[int], dice: Random) -> tuple[tuple[int, ...], ...]:
    old = dice.choice(used)
    having = [layer for layer, at in enumerate(cuts.at) if old in at]
    chosen = having if dice.random() < 0.4 else [dice.choice(having)]
    return tuple(
        tuple(place for place in at if place != old) if layer in chosen else at
        for layer, at in enumerate(cuts.at)
    )


def _added(
    cuts: Cuts, used: Sequence[int], depths: Sequence[int], dice: Random
) -> tuple[tuple[int, ...], ...]:
    """Add a cut; often in a range of depths, and often in exchange for another one."""
    if len(cuts.order) < 2:
        return cuts.at
    layers = [set(at) for at in cuts.at]
    again = used and dice.random() < 0.4
    new = dice.choice(used) if again else dice.randrange(1, len(cuts.order))
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
