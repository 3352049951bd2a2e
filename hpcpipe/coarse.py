"""Graphs that no few arrays can keep exactly: which elements should wait together.

A scheduler call an element would keep every dependency. A call a level of the graph costs little,
but each level then waits for the slowest element of the one above. Between the two lies a search:

* Elements are put into *layers*: of one depth, place and kind. Only elements of one layer can
  share an array. A layer in one piece is an array.
* They are put in a line, such that those which lead to the same later element are neighbours and
  the most urgent come first: *line* is the order in which a walk back from the graph's ends leaves
  them. *Cuts* in this line divide layers. Where a layer and the one below it are cut in the same
  places, an array waits for little more than it needs.
* Which layers to cut, and where, is found by trying: every try is laid out as arrays and simulated,
  and judged by the makespan beside that of exact dependencies, longest path first.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, exp, log

from hpcpipe.arrays import Array, exact_jobs, lay_out, make_jobs
from hpcpipe.elements import Elements
from hpcpipe.lines import make_layers, make_lines
from hpcpipe.model import Capabilities
from hpcpipe.simulate import simulate

_EFFORT = 2_000_000  # elements laid out or simulated, in all; two seconds or so
_TRIES = range(4, 1000)  # from the largest graphs to the smallest
_WARMTH = 0.03  # by how much a change may be for the worse, at first
_PIECES = (12, 9, 7, 6, 5, 4, 3, 2)
_SHARES = (0.35, 0.7, 1.0, 2.0)  # of the graph's mean width: cores to try where they are not known

# For every layer, where in the line it is cut.
Cuts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Coarse:
    """Arrays that keep all dependencies, and the makespan they are predicted to cost.

    ``cost`` is beside that of exact dependencies: 1.02 is two per cent longer, at worst over the
    numbers of ``cores`` tried.
    """

    arrays: Sequence[Array]
    cost: float
    cores: Sequence[int]


def coarsen(
    graph: Elements,
    can: Capabilities,
    size: int,
    *,
    calls: int,
    slack: float = 0.02,
    cores: int | None = None,
) -> Coarse:
    """Find at most ``calls`` arrays of at most ``size`` elements, and as few as slack lets.

    ``slack`` is the part by which the makespan may be longer than with exact dependencies. Where
    ``cores`` are not known, numbers about the graph's mean width are tried. A graph that is deeper
    than ``calls`` takes an array a level.
    """
    search = _Search(graph, can, size, calls, slack, cores)
    best = search.run()
    return Coarse(best.arrays, best.cost, search.cores)


@dataclass(frozen=True, eq=False)
class _Try:
    """Cuts that were tried, and what came of it; ``rank`` is the less the better."""

    rank: tuple[float, ...]
    arrays: Sequence[Array]
    cost: float
    line: int
    cuts: Cuts


class _Search:
    def __init__(
        self,
        graph: Elements,
        can: Capabilities,
        size: int,
        calls: int,
        slack: float,
        cores: int | None,
    ) -> None:
        self.graph, self._can, self._size, self._slack = graph, can, size, slack
        self.layers, self._layer_of = make_layers(graph, calls)
        self._depths = [layer[0] for layer in self.layers]
        self.calls = max(calls, sum(ceil(n / size) for n in self._sizes()))
        self.cores = [cores] if cores else _likely_cores(graph)
        exact = exact_jobs(graph)
        self._exact = [simulate(exact, cores).makespan or 1.0 for cores in self.cores]
        self._lines = make_lines(graph)
        self._tries = min(
            max(_EFFORT // (len(graph) * (1 + len(self.cores))), _TRIES[0]), _TRIES[-1]
        )
        self._done: dict[tuple[int, Cuts], _Try | None] = {}
        self._random = random.Random(0)  # the same graph has the same plan, always

    def _sizes(self) -> list[int]:
        counts = [0] * len(self.layers)
        for layer in self._layer_of:
            counts[layer] += 1
        return counts

    def run(self) -> _Try:
        """Search: first patterns of cuts, then whatever makes the best of these better."""
        whole: Cuts = ((),) * len(self.layers)
        best = self._try(0, whole)
        assert best is not None
        if best.cost <= 1 + self._slack / 4:
            return best
        patterns = list(self._patterns())
        self._random.shuffle(patterns)
        tried = [best]
        for line, cuts in patterns:
            if len(self._done) > self._tries * 2 // 5:
                break
            if found := self._try(line, cuts):
                tried.append(found)
        tried.sort(key=lambda one: one.rank)
        starts = tried[:4]
        for number, start in enumerate(starts):
            share = (self._tries - len(self._done)) // (len(starts) - number)
            best = min(best, self._climb(start, len(self._done) + share), key=lambda one: one.rank)
        return min(best, tried[0], key=lambda one: one.rank)

    def _parts(self, line: int, cuts: Cuts) -> list[list[int]]:
        where = self._lines[line].place
        parts: dict[tuple[int, int], list[int]] = {}
        for element, layer in enumerate(self._layer_of):
            cut = cuts[layer]
            key = layer, bisect_right(cut, where[element]) if cut else 0
            if key in parts:
                parts[key].append(element)
            else:
                parts[key] = [element]
        return [parts[key] for key in sorted(parts)]

    def _try(self, line: int, cuts: Cuts) -> _Try | None:
        """Lay the graph out with these cuts, and simulate; None if it takes too many calls."""
        if (line, cuts) in self._done:
            return self._done[line, cuts]
        parts = self._parts(line, cuts)
        if sum(ceil(len(part) / self._size) for part in parts) > self.calls:
            return None
        arrays = lay_out(self.graph, parts, self._can, self._size)
        jobs = make_jobs(self.graph, arrays)
        costs = [
            simulate(jobs, cores, window=self._can.window).makespan / exact
            for cores, exact in zip(self.cores, self._exact, strict=True)
        ]
        worst = max(costs)
        mean = exp(sum(log(max(cost, 1e-9)) for cost in costs) / len(costs))
        # Fewer calls count only among those that are good enough.
        good = 1 + self._slack / 2
        rank = (round(max(mean * worst**0.5, good), 4), len(arrays), mean)
        found = _Try(rank, arrays, worst, line, cuts)
        self._done[line, cuts] = found
        return found

    def _patterns(self) -> Iterator[tuple[int, Cuts]]:
        """Yield cuts to begin with: a range of depths in as many pieces as the calls allow."""
        depths = sorted(set(self._depths))
        seen = set()
        for number, line in enumerate(self._lines):
            for growth in (1.0, 1.5):  # equal pieces, or larger ones the later they are urgent
                pieces = {count: line.pieces(count, growth) for count in _PIECES}
                for first, last in combinations_with_replacement(depths, 2):
                    for count in _PIECES:
                        cuts = tuple(
                            pieces[count] if first <= depth <= last else ()
                            for depth in self._depths
                        )
                        calls = sum(len(cut) + 1 for cut in cuts)
                        if calls <= self.calls + count and (number, cuts) not in seen:
                            seen.add((number, cuts))
                            yield number, cuts
                            break

    def _climb(self, start: _Try, until: int) -> _Try:
        """Change cuts at random, and keep what is no worse; at first, what is a little worse."""
        best = here = start
        began = len(self._done)
        for _ in range(20 * self._tries):
            done = len(self._done)
            if done >= until:
                break
            found = self._try(here.line, self._changed(here))
            if found is None:
                continue
            warmth = _WARMTH * (until - done) / (until - began)
            if (
                found.rank <= here.rank
                or found.rank[0] <= here.rank[0] + warmth * self._random.random()
            ):
                here = found
                best = min(best, here, key=lambda one: one.rank)
        return best

    def _changed(self, one: _Try) -> Cuts:
        """Shift, drop or add a cut, in one layer or a range of depths."""
        dice, places = self._random, self._lines[one.line].breaks
        layers = [set(cut) for cut in one.cuts]
        used = sorted({place for cut in layers for place in cut})
        what = dice.random()
        if what < 0.4 and used:
            old = dice.choice(used)
            at = bisect_right(places, old) - 1 + dice.choice((-4, -3, -2, -1, 1, 2, 3, 4))
            for cut in layers:
                if old in cut:
                    cut.remove(old)
                    cut.add(places[max(0, min(len(places) - 1, at))])
        elif what < 0.6 and used:
            old = dice.choice(used)
            having = [cut for cut in layers if old in cut]
            for cut in having if dice.random() < 0.4 else [dice.choice(having)]:
                cut.remove(old)
        elif places:
            new = dice.choice(used if used and dice.random() < 0.4 else places)
            here = dice.randrange(len(layers))
            ends = self._depths[here], self._depths[dice.randrange(len(layers))]
            several = dice.random() < 0.6
            for layer, cut in enumerate(layers):
                if layer == here or (several and min(ends) <= self._depths[layer] <= max(ends)):
                    cut.add(new)
            if used and dice.random() < 0.5:
                old = dice.choice(used)
                for cut in layers:
                    if dice.random() < 0.7:
                        cut.discard(old)
        return tuple(tuple(sorted(cut)) for cut in layers)


def _likely_cores(graph: Elements) -> list[int]:
    """Guess numbers of cores at which it matters how the graph is laid out."""
    work = sum(
        seconds * (place[0].cpus or 1)
        for seconds, place in zip(graph.seconds, graph.places, strict=True)
    )
    width = work / (max(graph.below) or 1.0)
    most = max(place[0].cpus or 1 for place in set(graph.places))
    return sorted({max(most, round(share * width)) for share in _SHARES})
