"""The cells of a graph, which are what its parts are put together from.

A *cell* holds the elements of one layer and one block of an ordering. What cells wait for is
counted once, and a part that was put together once is kept: a search that changes a cut or two
makes few parts anew.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from math import ceil

from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.search.orderings import Ordering
from hpcpipe.planner.search.partition import Partition

_KEPT = 2_000_000  # of what chunks are made of; then they are forgotten, for memory's sake


@dataclass(frozen=True, eq=False)
class Chunk:
    """Elements that share an array: the cells they are in, and the cells that these wait for."""

    number: int  # its identity
    elements: Sequence[int]  # longest first, or longest way down first
    weight: float
    cells: Sequence[int]
    layer: int
    above: Mapping[int, int]  # cell → how many dependencies on it
    lone: Mapping[int, int]  # cell → the only element of it that is needed


class Cells:
    """The cells of an ordering, and the arrays that cuts in it would leave."""

    def __init__(
        self,
        graph: Elements,
        ordering: Ordering,
        layer_of: Sequence[int],
        size: int,
        paired: Collection[int] = (),  # layers whose elements others wait for one by one
    ) -> None:
        self.ordering, self.blocks = ordering, len(ordering.work)
        self.layers = max(layer_of, default=0) + 1
        self._graph, self._size = graph, size
        self._layer: list[int] = []
        self._elements: list[list[int]] = []  # by cell, in the order of indices
        self._number: list[dict[int, int]] = [{} for _ in range(self.layers)]  # block → cell
        self._rank = [0] * len(graph)
        self._longest = max(graph.below, default=0.0)
        # Where others wait for a whole array, its last element to start should be a short one.
        way = [
            graph.below[element] if layer in paired else graph.seconds[element]
            for element, layer in enumerate(layer_of)
        ]
        self._ranked = sorted(range(len(graph)), key=lambda one: (-way[one], -graph.below[one]))
        cell_of = [0] * len(graph)
        for rank, element in enumerate(self._ranked):
            layer, block = layer_of[element], ordering.block[element]
            numbers = self._number[layer]
            if (cell := numbers.get(block, -1)) < 0:
                cell = numbers[block] = len(self._elements)
                self._elements.append([])
                self._layer.append(layer)
            self._elements[cell].append(element)
            self._rank[element] = rank
            cell_of[element] = cell
        self._above: list[dict[int, int]] = [{} for _ in self._elements]
        self._lone: list[dict[int, int]] = [{} for _ in self._elements]  # -1: several are needed
        for element, parents in enumerate(graph.parents):
            above, lone = self._above[cell_of[element]], self._lone[cell_of[element]]
            for parent in parents:
                cell = cell_of[parent]
                above[cell] = above.get(cell, 0) + 1
                if lone.setdefault(cell, parent) != parent:
                    lone[cell] = -1
        self._made: dict[tuple[int, ...], list[Chunk]] = {}
        self._numbers = count()
        self.cells = len(self._elements)
        self.walked = 0  # what chunks were made of so far: elements, and what cells wait for
        self._until = _KEPT

    def split(self, partition: Partition) -> list[tuple[int, ...]]:
        """Return the cells of each part between the cuts, in the order of the blocks."""
        split = []
        for numbers, at in zip(self._number, partition.at, strict=True):
            for first, last in pairwise((0, *at, len(partition.order))):
                cells = tuple([numbers[b] for b in partition.order[first:last] if b in numbers])
                if cells:
                    split.append(cells)
        return split

    def count(self, split: Sequence[tuple[int, ...]]) -> int:
        """Return how many chunks parts make."""
        return sum([ceil(self._total(cells) / self._size) for cells in split])

    def chunks(self, split: Sequence[tuple[int, ...]]) -> list[Chunk]:
        """Return the chunks of parts: one each, or as many as the largest array size forces."""
        return [chunk for cells in split for chunk in self._made.get(cells) or self._make(cells)]

    def weights(self, chunks: Sequence[Chunk], haste: Mapping[int, float]) -> list[float]:
        """Return the weights by which to submit chunks; the least comes first."""
        if not haste:
            return [chunk.weight for chunk in chunks]
        return [
            chunk.weight - self._longest * sum([haste.get(cell, 0.0) for cell in chunk.cells])
            for chunk in chunks
        ]

    def _total(self, cells: Sequence[int]) -> int:
        return sum([len(self._elements[cell]) for cell in cells])

    def _make(self, cells: tuple[int, ...]) -> list[Chunk]:
        """Make chunks of some cells, or remember them."""
        total = self._total(cells)
        if self.walked > self._until:
            self._made.clear()
            self._until = self.walked + _KEPT
        if total <= self._size:
            same = tuple(sorted(cells))  # their order does not matter
            if same not in self._made:
                elements = [element for cell in cells for element in self._elements[cell]]
                self._made[same] = [self._chunk(elements, same)]
            self._made[cells] = self._made[same]
        else:
            self._made[cells] = list(self._divide(cells, total))
        return self._made[cells]

    def _divide(self, cells: Sequence[int], total: int) -> Iterator[Chunk]:
        """Make chunks of even size, one after the other along the ordering."""
        step = ceil(total / ceil(total / self._size))
        elements = [element for cell in cells for element in self._elements[cell]]
        ends = list(accumulate([len(self._elements[cell]) for cell in cells]))
        for first in range(0, total, step):
            last = min(first + step, total)
            within = cells[bisect_right(ends, first) : bisect_left(ends, last) + 1]
            yield self._chunk(elements[first:last], within)

    def _chunk(self, elements: Sequence[int], cells: Sequence[int]) -> Chunk:
        graph = self._graph
        self.walked += len(elements) + sum([len(self._above[cell]) for cell in cells])
        ranks = sorted([self._rank[element] for element in elements])
        ordered = [self._ranked[rank] for rank in ranks]
        above: dict[int, int] = {}
        lone: dict[int, int] = {}
        for cell in cells:
            for parent, dependencies in self._above[cell].items():
                above[parent] = above.get(parent, 0) + dependencies
                one = self._lone[cell][parent]
                if lone.setdefault(parent, one) != one:
                    lone[parent] = -1
        return Chunk(
            next(self._numbers),
            ordered,
            -sum([graph.below[element] for element in ordered]) / len(ordered),
            tuple(cells),
            self._layer[cells[0]],
            above,
            {cell: element for cell, element in lone.items() if element >= 0},
        )
