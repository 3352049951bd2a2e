"""Graphs that no few arrays can keep exactly: which elements should wait together.

A scheduler call an element would keep every dependency. A call a level of the graph costs little,
but each level then waits for the slowest element of the one above. Between the two lies a search:

* Elements are put into *layers*: of one depth, place and kind. Only elements of one layer can
  share an array. A layer in one piece is an array.
* They are put in a *line* of blocks, such that those which lead to the same later element are
  neighbours and the most urgent come first. *Cuts* in this line divide layers. Where a layer and
  the one below it are cut in the same places, an array waits for little more than it needs.
* Which layers to cut, and where, and in which order the blocks should stand, is found by trying:
  every try is laid out as arrays and simulated, and judged by the makespan beside that of exact
  dependencies, longest path first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, exp, inf, log

from hpcpipe.arrays import Array, exact_jobs, lay_out, make_jobs
from hpcpipe.cuts import Cuts, Pieces, changed
from hpcpipe.elements import Elements
from hpcpipe.lines import make_layers, make_lines
from hpcpipe.model import Capabilities
from hpcpipe.simulate import simulate

_EFFORT = 3_000_000  # elements and dependencies laid out or simulated; three seconds or so
_TRIES = 4, 1000  # at least and at most, whatever the size of the graph
_WARMTH = 0.03  # by how much a change may be for the worse, at first
_PIECES = (12, 9, 7, 6, 5, 4, 3, 2)
_IDLE = 2000  # changes in turn that bring nothing: there may be no more to try
_STARTS = 4  # patterns of cuts to begin with
_SHARES = (0.35, 0.7, 1.0, 1.5, 3.0)  # of the graph's mean width: cores to try if none are known


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
    return Coarse(best.arrays, max(best.costs), search.cores)


@dataclass(frozen=True, eq=False)
class _Try:
    """Cuts that were tried, and what came of it; ``rank`` is the less the better."""

    rank: tuple[float, ...]
    arrays: Sequence[Array]
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
        self._pieces = [Pieces(graph, line.block, layer_of, len(layers)) for line in self._lines]
        whole = self._pieces[0].whole(0)
        self._calls = max(calls, self._count(self._pieces[0].parts(whole)))
        self.cores = [cores] if cores else [*likely_cores(graph), _endless(graph)]
        exact = exact_jobs(graph)
        self._exact = [simulate(exact, cores).makespan or 1.0 for cores in self.cores]
        self._least = [1.0] * len(self.cores)  # of the costs seen, by number of cores
        self._hard = [0.0] * len(self.cores)  # the latest ones
        self._edges = sum(map(len, graph.parents))
        self._spent = 0
        self._done: set[object] = set()
        self._random = random.Random(0)  # the same graph has the same plan, always
        self._first = whole

    def run(self) -> _Try:
        """Search: first patterns of cuts, then whatever makes the best of these better."""
        best = self._try(self._first, inf)
        assert best is not None
        if max(best.costs) <= 1 + self._slack / 4:
            return best
        patterns = list(self._patterns())
        self._random.shuffle(patterns)
        tried = [best]
        for cuts in patterns:
            if self._ended(_EFFORT * 2 // 5):
                break
            # Worth a full look only where it may become one of those to begin with.
            worst = tried[_STARTS - 1].rank[0] if len(tried) >= _STARTS else inf
            if found := self._try(cuts, worst):
                tried = sorted([*tried, found], key=lambda one: one.rank)[:_STARTS]
        for number, start in enumerate(tried):
            share = (_EFFORT - self._spent) // (len(tried) - number)
            best = min(best, self._climb(start, self._spent + share), key=lambda one: one.rank)
        return best

    def _ended(self, effort: int) -> bool:
        tries = len(self._done)
        return tries >= _TRIES[1] or (self._spent >= effort and tries >= _TRIES[0])

    def _count(self, parts: Sequence[Sequence[int]]) -> int:
        return sum(ceil(len(part) / self._size) for part in parts)

    def _try(self, cuts: Cuts, limit: float) -> _Try | None:
        """Lay the graph out with these cuts, and simulate.

        None if it was tried before, takes too many calls, or is sure to rank above ``limit``.
        """
        pieces = self._pieces[cuts.line]
        key = pieces.key(cuts)
        if key in self._done:
            return None
        parts = pieces.parts(cuts)
        if self._count(parts) > self._calls:
            return None
        self._done.add(key)
        arrays = lay_out(self.graph, parts, self._can, self._size)
        jobs = make_jobs(self.graph, arrays)
        self._spent += len(self.graph) + self._edges
        costs = list(self._least)
        # What cost most before is likely to do so again, and may save the rest.
        for at in sorted(range(len(costs)), key=self._hard.__getitem__, reverse=True):
            made = simulate(jobs, self.cores[at], window=self._can.window).makespan
            costs[at] = made / self._exact[at]
            self._spent += len(self.graph)
            self._hard[at] = costs[at]
            if _mark(costs) > limit:
                return None
        self._least = [min(pair) for pair in zip(costs, self._least, strict=True)]
        # Fewer calls count only among those that are good enough.
        mark = _mark(costs)
        rank = (round(max(mark, 1 + self._slack / 2), 4), len(arrays), mark)
        return _Try(rank, arrays, costs, cuts)

    def _patterns(self) -> Iterator[Cuts]:
        """Yield cuts to begin with: a range of depths in as many pieces as the calls allow."""
        depths = sorted(set(self._depths))
        seen = set()
        for number, line in enumerate(self._lines):
            order = tuple(range(len(line.work)))
            for growth in (1.0, 1.5):  # equal pieces, or larger ones the later they are urgent
                pieces = {count: line.pieces(count, growth) for count in _PIECES}
                for first, last in combinations_with_replacement(depths, 2):
                    for count in _PIECES:
                        at = tuple(
                            pieces[count] if first <= depth <= last else ()
                            for depth in self._depths
                        )
                        calls = sum(len(cut) + 1 for cut in at)
                        if calls <= self._calls + count and (number, at) not in seen:
                            seen.add((number, at))
                            yield Cuts(number, order, at)
                            break

    def _climb(self, start: _Try, until: int) -> _Try:
        """Change cuts at random, and keep what is no worse; at first, what is a little worse."""
        best = here = start
        began = self._spent
        idle = 0
        while not self._ended(until) and idle < _IDLE:
            warmth = _WARMTH * max(0, until - self._spent) / max(1, until - began)
            limit = here.rank[0] + warmth * self._random.random()
            found = self._try(changed(here.cuts, self._depths, self._random), limit)
            idle = idle + 1 if found is None else 0
            if found and (found.rank <= here.rank or found.rank[0] <= limit):
                here = found
                best = min(best, here, key=lambda one: one.rank)
        return best


def _mark(costs: Sequence[float]) -> float:
    """Weigh costs: their mean, and somewhat more the worst."""
    mean = exp(sum(log(max(cost, 1e-9)) for cost in costs) / len(costs))
    return float(mean * max(costs) ** 0.5)


def likely_cores(graph: Elements, shares: Sequence[float] = _SHARES) -> list[int]:
    """Guess numbers of cores at which it matters how the graph is laid out.

    They are ``shares`` of its mean width: of what it keeps busy if there is no end of cores.
    """
    work = sum(
        seconds * (place[0].cpus or 1)
        for seconds, place in zip(graph.seconds, graph.places, strict=True)
    )
    width = work / (max(graph.below, default=0.0) or 1.0)
    most = max((place[0].cpus or 1 for place in set(graph.places)), default=1)
    return sorted({max(most, round(share * width)) for share in shares})


def _endless(graph: Elements) -> int:
    """Count so many cores that no element ever waits for one."""
    return sum(place[0].cpus or 1 for place in graph.places)
