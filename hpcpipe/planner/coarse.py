"""Graphs that no few arrays can keep exactly: which elements should wait together.

A scheduler call an element would keep every dependency. A call a level of the graph costs little,
but each level then waits for the slowest element of the one above. Between the two lies a search:

* Elements are put into *layers*: of one depth, place and kind. Only elements of one layer can
  share an array. A layer in one piece is an array.
* They are put in a *line* of blocks, such that those which lead to the same later element are
  neighbours and the most urgent come first. *Cuts* in this line divide layers. Where a layer and
  the one below it are cut in the same places, an array waits for little more than it needs.
* Which layers to cut, and where, and in which order the blocks should stand, is found by trying.
  Every try is *sketched*: as arrays of cells, what a layer and a block have in common. How long
  these would take is found for several numbers of cores, and judged by the makespan of exact
  dependencies, longest path first. Only the best one is laid out, element by element.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import cbrt, inf

from hpcpipe.model import Capabilities
from hpcpipe.planner.arrays import Array, lay_out
from hpcpipe.planner.cells import Cells
from hpcpipe.planner.cuts import Cuts, changed
from hpcpipe.planner.elements import Elements
from hpcpipe.planner.lines import make_layers, make_lines
from hpcpipe.planner.makespan import makespan
from hpcpipe.planner.simulate import Job
from hpcpipe.planner.sketch import find_pairs, sketch
from hpcpipe.planner.yardstick import exact_makespans

# Effort is counted in what takes about a microsecond.
_EFFORT = 4_500_000
_EFFORT_EACH = 150  # more, for every element
_SKETCH = 400
_LEAST = 4  # tries, however large the graph
_MOST_EACH = 20  # tries for every element: there is no more to find in a small graph
_WARMTH = 0.03  # by how much a change may be for the worse, at first
_PIECES = (12, 9, 7, 6, 5, 4, 3, 2)
_IDLE = 2000  # changes in turn that bring nothing: there may be no more to try
_STARTS = 4  # patterns of cuts to begin with
_SHARES = (0.25, 0.35, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)


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
    ``cores`` are not known, numbers about the graph's mean width are tried, and as many as there
    are elements. A graph that is deeper than ``calls`` takes an array a level.
    """
    search = _Search(graph, can, size, calls, slack, cores)
    best = search.run()
    arrays = lay_out(graph, search.parts(best.cuts), can, size)
    return Coarse(arrays, max(best.costs), search.cores)


@dataclass(frozen=True, eq=False)
class _Try:
    """Cuts that were tried, and what came of it; ``rank`` is the less the better."""

    rank: tuple[float, ...]
    costs: Sequence[float]  # by number of cores
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
        layers, layer_of = make_layers(graph, calls)
        self._depths = [layer[0] for layer in layers]
        self._lines = make_lines(graph)
        self._pairs = find_pairs(graph, layer_of) if can.elementwise else {}
        self._cells = [Cells(graph, line.block, layer_of, size) for line in self._lines]
        last = len(self._cells) - 1  # by urgency alone: best if there are to be no cuts
        self._first = Cuts(last, tuple(range(self._cells[last].blocks)), ((),) * len(layers))
        least = self._cells[last].count(self._cells[last].split(self._first))
        # Where the size of arrays forces more, each layer may yet be cut once.
        self._calls = max(calls, least, least + min(len(layers), calls - len(layers)))
        self._room = self._calls - least  # calls left for cuts
        self.cores = [cores] if cores else [*likely_cores(graph), _endless(graph)]
        self._exact = [seconds or 1.0 for seconds in exact_makespans(graph, self.cores)]
        self._least = [1.0] * len(self.cores)  # of the costs seen, by number of cores
        self._many = len(graph) * max(graph.cpus)
        self._hard = [0.0] * len(self.cores)  # the latest ones
        self._most = _EFFORT + _EFFORT_EACH * len(graph)
        self._spent = 0
        self._glance = len(layers) * self._cells[last].blocks // 8  # at cuts
        self._done: set[object] = set()
        self._random = random.Random(0)  # the same graph has the same plan, always

    def run(self) -> _Try:
        """Search: first patterns of cuts, then whatever makes the best of these better."""
        best = self._try(self._first, inf)
        assert best is not None
        if max(best.costs) <= 1 + self._slack / 4 or not self._room:
            return best
        tried = [best]
        for cuts in self._patterns():
            # Worth a full look only where it may become one of those to begin with.
            worst = tried[_STARTS - 1].rank[0] if len(tried) >= _STARTS else inf
            if found := self._try(cuts, worst):
                tried = sorted([*tried, found], key=lambda one: one.rank)[:_STARTS]
        if found := self._widened(tried[0]):
            tried[-1] = found
        for number, start in enumerate(tried):
            share = (self._most - self._spent) // (len(tried) - number)
            best = min(best, self._climb(start, self._spent + share), key=lambda one: one.rank)
        return best

    def _widened(self, start: _Try) -> _Try | None:
        """Change cuts for the sake of unlimited cores alone, which is quickly done."""
        widest = self.cores.index(max(self.cores))
        if self.cores[widest] < self._many or start.costs[widest] <= 1 + self._slack / 2:
            return None
        first = self._try(start.cuts, inf, (widest,))
        assert first is not None
        wide = self._climb(first, self._spent + self._most // 5, (widest,))
        return self._try(wide.cuts, inf)

    def parts(self, cuts: Cuts) -> list[Sequence[int]]:
        """Give the elements of each array that cuts leave."""
        cells = self._cells[cuts.line]
        return [chunk.elements for chunk in cells.chunks(cells.split(cuts))]

    def _ended(self, effort: int) -> bool:
        tries = len(self._done)
        most = _MOST_EACH * len(self.graph)
        return tries >= most or (self._spent >= effort and tries >= _LEAST)

    def _try(self, cuts: Cuts, limit: float, among: Sequence[int] | None = None) -> _Try | None:
        """Sketch the arrays that cuts leave, and see how long they take.

        None if it was tried before, takes too many calls, or is sure to rank above ``limit``.
        Where ``among`` says so, only some of the numbers of cores are looked at.
        """
        cells = self._cells[cuts.line]
        self._spent += self._glance
        split = cells.split(cuts)
        if cells.count(split) > self._calls:
            return None
        walked = cells.walked
        chunks = cells.chunks(split)
        self._spent += (cells.walked - walked) // 2
        key = frozenset([chunk.number for chunk in chunks]), cuts.line, among
        if key in self._done:
            return None
        self._done.add(key)
        jobs = sketch(chunks, self._pairs, self._can)
        self._spent += _SKETCH + sum([len(chunk.above) for chunk in chunks]) // 8
        costs = list(self._least)
        # What cost most before is likely to do so again, and may save the rest.
        looked_at = range(len(costs)) if among is None else among
        for at in sorted(looked_at, key=lambda at: (self.cores[at] < self._many, -self._hard[at])):
            made = makespan(jobs, self.cores[at], window=self._can.window)
            costs[at] = made / self._exact[at]
            self._spent += self._effort(jobs) if self.cores[at] < self._many else 0
            self._hard[at] = costs[at]
            if _mark(costs) > limit:
                return None
        self._least = [min(pair) for pair in zip(costs, self._least, strict=True)]
        # Fewer calls count only among those that are good enough.
        mark = _mark(costs)
        rank = (round(max(mark, 1 + self._slack / 2), 4), len(jobs), mark)
        return _Try(rank, costs, cuts)

    def _effort(self, jobs: Sequence[Job]) -> int:
        """Say what it takes to simulate: most where elements go along with one another."""
        if len({job.cpus for job in jobs}) > 1:
            return len(self.graph)
        along = sum([len(job.seconds) for job in jobs if job.each])
        return len(self.graph) // 5 + along

    def _patterns(self) -> Iterator[Cuts]:
        """Yield cuts to begin with: a range of depths in as many pieces as the calls allow."""
        ranges = combinations_with_replacement(sorted(set(self._depths)), 2)
        # Equal pieces, or larger ones the later they are urgent.
        choices = list(product(range(len(self._lines)), (1.0, 1.5), ranges))
        self._random.shuffle(choices)
        for number, growth, (first, last) in choices:
            if self._spent > self._most * 2 // 5:
                return
            line, cells = self._lines[number], self._cells[number]
            for count in _PIECES:
                pieces = line.pieces(count, growth)
                at = tuple(pieces if first <= depth <= last else () for depth in self._depths)
                cuts = Cuts(number, tuple(range(len(line.work))), at)
                self._spent += self._glance
                if cells.count(cells.split(cuts)) <= self._calls:
                    yield cuts
                    break

    def _climb(self, start: _Try, until: int, among: Sequence[int] | None = None) -> _Try:
        """Change cuts at random, and keep what is no worse; at first, what is a little worse."""
        best = here = start
        began = self._spent
        idle = 0
        while not self._ended(until) and idle < _IDLE:
            warmth = _WARMTH * max(0, until - self._spent) / max(1, until - began)
            limit = here.rank[0] + warmth * self._random.random()
            found = self._try(changed(here.cuts, self._depths, self._random), limit, among)
            idle = idle + 1 if found is None else 0
            if found and (found.rank <= here.rank or found.rank[0] <= limit):
                here = found
                best = min(best, here, key=lambda one: one.rank)
        return best


def _mark(costs: Sequence[float]) -> float:
    """Weigh costs: the cube root of the mean cube of what they are above 1, so the worst most."""
    return 1 + cbrt(sum([max(0.0, cost - 1) ** 3 for cost in costs]) / len(costs))


def likely_cores(graph: Elements, shares: Sequence[float] = _SHARES) -> list[int]:
    """Guess numbers of cores at which it matters how the graph is laid out.

    They are ``shares`` of its mean width: of what it keeps busy if there is no end of cores.
    """
    work = sum(seconds * cpus for seconds, cpus in zip(graph.seconds, graph.cpus, strict=True))
    width = work / (max(graph.below, default=0.0) or 1.0)
    most = max(graph.cpus, default=1)
    return sorted({max(most, round(share * width)) for share in shares})


def _endless(graph: Elements) -> int:
    """Count so many cores that no element ever waits for one."""
    return sum(graph.cpus)
