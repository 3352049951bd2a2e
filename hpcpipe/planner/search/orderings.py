"""Where a graph may be cut: into layers by depth, and along orderings by lineage.

See `hpcpipe.planner.search.search`, whose search these are made for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from hpcpipe.planner.element_graph import Elements

# Of the work, where an ordering is cut into blocks: evenly, and finely at the front.
_SHARES = sorted({i / 48 for i in range(1, 49)} | {2 ** (-i / 2) for i in range(2, 16)})
_WHOLE = 2**20  # what an element counts if it is cut off from all that it needs


def make_layers(graph: Elements, calls: int, size: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Put elements into layers; return what distinguishes the layers, and each element's layer.

    Kinds share a layer where their parents do, unless they pair one to one with those of a kind:
    so they can stay aligned. Where that makes more arrays than calls, all kinds share it.
    """
    # What waits for jobs of an earlier submission should not make others wait for them, too.
    places = [(place, element in graph.in_flight) for element, place in enumerate(graph.places)]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
    base = [(depth, numbers[place]) for depth, place in zip(graph.depth, places, strict=True)]
    fine = _by_kind(graph, base)
    forced = sum([ceil(count / size) for count in Counter(fine).values()])
    keys: Sequence[tuple[int, ...]] = fine if forced <= calls else base
    layers = sorted(set(keys))
    number = {key: at for at, key in enumerate(layers)}
    return layers, [number[key] for key in keys]


def _by_kind(graph: Elements, base: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    groups: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for element in graph.order:  # by depth, so that what is above has its layer before
        groups.setdefault((*base[element], graph.kinds[element]), []).append(element)
    named: dict[tuple[object, ...], int] = {}
    layer: list[tuple[int, ...]] = [()] * len(graph)
    for key in sorted(groups, key=lambda key: key[0]):
        elements = groups[key]
        above: dict[tuple[int, ...], list[int]] = {}
        for element in elements:
            for parent in graph.parents[element]:
                above.setdefault(layer[parent], []).append(parent)
        pairs = len(elements) > 1 and any(
            len(parents) == len(elements) == len(set(parents)) for parents in above.values()
        )
        name = (*key[:2], key[2] if pairs else tuple(sorted(above)))
        number = named.setdefault(name, len(named))
        for element in elements:
            layer[element] = (*key[:2], number)
    return layer


@dataclass(frozen=True, eq=False)
class Ordering:
    """All elements in blocks, one after the other: each one's block, and the work of each block."""

    block: Sequence[int]
    work: Sequence[float]

    def pieces(self, count: int, growth: float) -> tuple[int, ...]:
        """Return before which blocks to cut, for ``count`` pieces of equal or of growing work."""
        before = [0.0, *accumulate(self.work)]
        cuts = set()
        for piece in range(1, count):
            share = piece / count if growth == 1 else (growth**piece - 1) / (growth**count - 1)
            at = bisect_right(before, share * before[-1])
            near = [one for one in (at - 1, at) if 0 < one < len(self.work)]
            if near:
                cuts.add(min(near, key=lambda one: abs(before[one] - share * before[-1])))
        return tuple(sorted(cuts))


def make_orderings(graph: Elements, starts: Sequence[float] | None) -> list[Ordering]:
    """Make orderings to cut: by two measures of urgency, each as it is, moved up and put off.

    First comes what the longest way leads through, or what must start earliest. Moved up, an
    element is in the block that the last of its parents is in. Put off, one that nothing waits for
    is in the block that the baseline, in which elements have these ``starts``, has come to when
    it starts it: short ones fill the cores at the end. Small graphs have no ``starts``: nothing is
    put off there, and what is on the longest path comes first.
    """
    count = len(graph)
    longest = max(graph.below, default=0.0)
    above = [0.0] * count  # seconds from the start to the element's, at best
    late = [longest] * count  # the earliest time by which something before it must have started
    for element in graph.order:
        parents = graph.parents[element]
        if parents:
            above[element] = max(above[parent] + graph.seconds[parent] for parent in parents)
            before = min(late[parent] for parent in parents)
            late[element] = min(before, longest - graph.below[element])
    orderings = []
    path = [-(a + b) for a, b in zip(above, graph.below, strict=True)]
    end = [-(a + s) for a, s in zip(above, graph.seconds, strict=True)]
    for urgency in (path if starts is None else _lineage(graph), late):
        plain = _blocks(graph, _walk(graph, list(zip(urgency, end, strict=True))))
        moved = list(plain)
        for element in graph.order:
            if graph.parents[element]:
                moved[element] = max(moved[parent] for parent in graph.parents[element])
        orderings += [_ordering(graph, plain), _ordering(graph, moved)]
        if starts is not None:
            orderings.append(_ordering(graph, _put_off(graph, plain, moved, starts)))
    return orderings


def _lineage(graph: Elements) -> list[float]:
    """Measure urgency by the longest way down; that of an end, by the longest that leads to it.

    Of the ends of one element, only that one brings along all that it needs early: ends that need a
    little of many lineages do not tear these apart.
    """
    urgency = [-one for one in graph.below]
    foot = list(range(len(graph)))  # the end to which the longest way leads
    for element in reversed(graph.order):
        if graph.children[element]:
            foot[element] = foot[max(graph.children[element], key=graph.below.__getitem__)]
    for element, end in enumerate(foot):
        urgency[end] = min(urgency[end], -graph.below[element])
    return urgency


def _put_off(
    graph: Elements, block: Sequence[int], moved: Sequence[int], starts: Sequence[float]
) -> list[int]:
    """Put off ends: to the block that has as much work before it as is begun before their start."""
    ends = list(accumulate(_ordering(graph, block).work))[:-1]
    off = list(moved)
    begun = 0.0
    for element in sorted(graph.order, key=starts.__getitem__):
        if not graph.children[element]:
            off[element] = max(off[element], bisect_right(ends, begun))
        begun += graph.seconds[element]
    return off


def plain_ordering(graph: Elements) -> Ordering:
    """Make the ordering of graphs that need no cuts: by the longest way down, in equal blocks."""
    count = len(graph)
    block = [0] * count
    for at, element in enumerate(sorted(graph.order, key=lambda element: -graph.below[element])):
        block[element] = at * 48 // count
    return _ordering(graph, block)


def _ordering(graph: Elements, block: Sequence[int]) -> Ordering:
    work = [0.0] * (max(block, default=0) + 1)
    for element, at in enumerate(block):
        work[at] += graph.seconds[element]
    return Ordering(block, work)


def _walk(graph: Elements, urgency: Sequence[tuple[float, float]]) -> list[int]:
    """Walk back from the graph's ends, the most urgent first; list elements after their parents."""
    seen = bytearray(len(graph))
    order: list[int] = []
    key = urgency.__getitem__
    ends = [element for element, children in enumerate(graph.children) if not children]
    for end in sorted(ends, key=key):
        seen[end] = True
        path = [(end, iter(sorted(graph.parents[end], key=key)))]
        while path:
            element, parents = path[-1]
            for parent in parents:
                if not seen[parent]:
                    seen[parent] = True
                    path.append((parent, iter(sorted(graph.parents[parent], key=key))))
                    break
            else:
                order.append(element)
                path.pop()
    return order


def _blocks(graph: Elements, order: Sequence[int]) -> list[int]:
    """Cut an order of elements into blocks, where the fewest dependencies cross.

    One cut is chosen in each of 48 equal shares of the work, and in shares that double from the
    front.
    """
    count = len(graph)
    place = [0] * count
    for at, element in enumerate(order):
        place[element] = at
    change = [0] * (count + 1)
    for element, parents in enumerate(graph.parents):
        if parents:  # it counts the same however many these are; in integers, lest some be left
            part = _WHOLE // len(parents)
            for parent in parents:
                change[place[parent] + 1] += part
            change[place[element] + 1] -= part * len(parents)
    work = [0.0, *accumulate(graph.seconds[element] for element in order)]
    breaks: list[tuple[int, int]] = []
    at, crossing = 1, change[0]
    for share in _SHARES:
        best: tuple[int, int] | None = None
        while at < count and work[at] <= share * work[-1]:
            crossing += change[at]
            if best is None or crossing < best[0]:
                best = crossing, at
            at += 1
        if best:
            breaks.append((best[1], best[0]))
    near = work[-1] / 24
    kept = [
        at
        for at, crossing in breaks
        if all(abs(work[other] - work[at]) > near or crossing <= 4 * less for other, less in breaks)
    ]
    return [bisect_right(kept, at) for at in place]
