"""Where a graph may be cut: into layers by depth, and along lines by lineage.

See `hpcpipe.coarse`, whose search these are made for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from hpcpipe.elements import Elements


def make_layers(graph: Elements, calls: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Put elements into layers; return what tells the layers apart, and each element's layer.

    Kinds share a layer where their parents do, unless they pair one to one with those of a kind:
    so they can stay aligned. Where that makes more layers than calls, all kinds share it.
    """
    places = {place: number for number, place in enumerate(dict.fromkeys(graph.places))}
    base = [(depth, places[place]) for depth, place in zip(graph.depth, graph.places, strict=True)]
    fine = _by_kind(graph, base)
    keys: Sequence[tuple[int, ...]] = fine if len(set(fine)) <= calls else base
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
class Line:
    """An order of all elements: each one's place, the work before each place, where to cut."""

    place: Sequence[int]
    work: Sequence[float]
    breaks: Sequence[int]

    def pieces(self, count: int, growth: float) -> tuple[int, ...]:
        """Cut into so many pieces of equal work, or of growing work."""
        cuts = set()
        for piece in range(1, count):
            share = piece / count if growth == 1 else (growth**piece - 1) / (growth**count - 1)
            wanted = bisect_right(self.work, share * self.work[-1])
            at = bisect_right(self.breaks, wanted)
            near = self.breaks[max(0, at - 1) : at + 1]
            if near:
                cuts.add(min(near, key=lambda place: abs(place - wanted)))
        return tuple(sorted(cuts))


def make_lines(graph: Elements) -> list[Line]:
    """Make lines to cut: by two measures of urgency, each as it is and with elements moved up.

    Moved up, an element stands where the last of its parents does.
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
    path = [-(a + b) for a, b in zip(above, graph.below, strict=True)]
    end = [-(a + s) for a, s in zip(above, graph.seconds, strict=True)]
    lines = []
    for urgency in (path, late):
        order = _walk(graph, [(u, e) for u, e in zip(urgency, end, strict=True)])
        place = [0] * count
        for at, element in enumerate(order):
            place[element] = at
        work = [0.0]
        for element in order:
            work.append(work[-1] + graph.seconds[element])
        breaks = _breaks(graph, place, work)
        lines.append(Line(place, work, breaks))
        moved = list(place)
        for element in graph.order:
            if graph.parents[element]:
                moved[element] = max(moved[parent] for parent in graph.parents[element])
        lines.append(Line(moved, work, breaks))
    return lines


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


def _breaks(graph: Elements, place: Sequence[int], work: Sequence[float]) -> list[int]:
    """Choose places to cut the line at: those that the fewest dependencies cross.

    One is chosen in each of 48 equal shares of the work, and in shares that double from the front.
    """
    count = len(graph)
    change = [0.0] * (count + 1)
    for element in range(count):
        parents = graph.parents[element]
        for parent in parents:  # an element counts as one, however many it needs
            change[place[parent] + 1] += 1 / len(parents)
            change[place[element] + 1] -= 1 / len(parents)
    shares = sorted({i / 48 for i in range(1, 49)} | {2 ** (-i / 2) for i in range(2, 16)})
    breaks = []
    at, crossing = 1, change[0]
    for share in shares:
        best: tuple[float, int] | None = None
        while at < count and work[at] <= share * work[-1]:
            crossing += change[at]
            if best is None or crossing < best[0]:
                best = crossing, at
            at += 1
        if best:
            breaks.append(best[1])
    return breaks
