"""How the layers of a graph are cut into parts: an order of blocks, and cuts in it.

See `hpcpipe.coarse`, which searches for the cuts that cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from hpcpipe.elements import Elements


@dataclass(frozen=True)
class Cuts:
    """Where each layer is cut.

    ``order`` is that of the blocks of the line of this number; ``at`` holds for every layer the
    places in it, ascending, before which the layer is cut.
    """

    line: int
    order: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]


class Pieces:
    """The elements of each layer and block, for a line: what parts are put together from."""

    def __init__(
        self, graph: Elements, block: Sequence[int], layer_of: Sequence[int], layers: int
    ) -> None:
        self.blocks = max(block, default=0) + 1
        self._cells: list[dict[int, list[int]]] = [{} for _ in range(layers)]
        # Longest way down first, as they will stand in an array.
        for element in sorted(range(len(graph)), key=lambda element: -graph.below[element]):
            self._cells[layer_of[element]].setdefault(block[element], []).append(element)

    def whole(self, line: int) -> Cuts:
        """Give the cuts that cut nothing."""
        return Cuts(line, tuple(range(self.blocks)), ((),) * len(self._cells))

    def parts(self, cuts: Cuts) -> list[list[int]]:
        """Give the parts that cuts leave, each with its elements."""
        return [
            [element for block in blocks for element in cells[block]]
            for cells, layer in zip(self._cells, self._split(cuts), strict=True)
            for blocks in layer
        ]

    def key(self, cuts: Cuts) -> object:
        """Give what is equal for cuts that leave the same parts."""
        return cuts.line, tuple(
            tuple(sorted(tuple(sorted(blocks)) for blocks in layer)) for layer in self._split(cuts)
        )

    def _split(self, cuts: Cuts) -> list[list[list[int]]]:
        """Give, for every layer, its parts as lists of blocks, less those without elements."""
        split = []
        for cells, at in zip(self._cells, cuts.at, strict=True):
            ends = pairwise((0, *at, len(cuts.order)))
            parts = [[b for b in cuts.order[first:last] if b in cells] for first, last in ends]
            split.append([part for part in parts if part])
        return split


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
