"""The search for a partition of a graph that costs little: see `hpcpipe.planner` for the algorithm.

Only elements of one layer can share an array. A layer in one piece is an array; where a layer and
the one below it are cut in the same places, an array waits for little more than it needs. Every
partition that is tried is only estimated; the best one is laid out, element by element.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import cbrt, inf

from hpcpipe.jobs import Capabilities
from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.layout import Array, lay_out
from hpcpipe.planner.search.baseline import exact_makespans, exact_starts
from hpcpipe.planner.search.cell_index import Cells
from hpcpipe.planner.search.estimate import Pairs, estimate, find_pairs
from hpcpipe.planner.search.orderings import make_layers, make_orderings, plain_ordering
from hpcpipe.planner.search.partition import Partition, changed
from hpcpipe.planner.simulate import Job, makespan

# Effort is counted in what takes about a microsecond.
_EFFORT_EACH = 1100  # for every element: a try takes as much longer as there are more of them
_EFFORT_LEAST, _EFFORT_MOST = 700_000, 2_500_000
_SMALL, _EFFORT_SMALL = 500, 3_600_000  # luck decides more where tasks are few
_SKETCH = 400
_LEAST = 4  # tries, however large the graph
_MOST_EACH = 20  # tries for every element: there is no more to find in a small graph
_WARMTH = 0.002  # by how much a change may be for the worse, at first
_PIECES = (12, 9, 7, 6, 5, 4, 3, 2)
_GROWTHS = (0.7, 1.0, 1.5)  # of pieces, along the ordering
_IDLE = 2000  # changes in turn that bring nothing: there may be no more to try
_STARTS, _STARTS_SMALL = 1, 4  # patterns of cuts to begin with
_SPARED = 0.6  # of what the least cost seen on so many cores is above that on others
_SHARES = (0.25, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.3, 3.2, 4.5)


def coarsen(
    graph: Elements,
    can: Capabilities,
    size: int,
    *,
    calls: int,
    slack: float = 0.02,
    cores: int | None = None,
) -> list[Array]:
    """Find at most ``calls`` arrays of at most ``size`` elements, and as few as slack lets.

    ``slack`` is the part by which the makespan may be longer than with exact dependencies. Where
    ``cores`` are not known, numbers about the graph's mean width are tried, and as many as there
    are elements. A graph that is deeper than ``calls`` takes an array a level.
    """
    layers, layer_of = make_layers(graph, calls, size)
    pairs = find_pairs(graph, layer_of) if can.elementwise else {}
    # Small graphs have calls to be cut so finely that hardly anything waits for a whole array.
    paired = set(layer_of) if _is_small(graph) else {above for _, above in pairs}
    plain = Cells(graph, plain_ordering(graph), layer_of, size, paired)
    partition = Partition(0, tuple(range(plain.blocks)), ((),) * len(layers))
    least = plain.count(plain.split(partition))
    # Where the size of arrays forces more than there are calls, each layer may yet be cut once.
    spare = max(0, min(len(layers), calls - len(layers)))
    most = calls if least <= calls else least + spare
    cells = [plain]
    if most > least:
        (width,) = [cores] if cores else likely_cores(graph, (1.0,))
        starts = None if _is_small(graph) else exact_starts(graph, width)
        orderings = make_orderings(graph, starts)
        cells += [Cells(graph, one, layer_of, size, paired) for one in orderings]
        depths = [layer[0] for layer in layers]
        partition = _Search(graph, can, cells, depths, pairs, most, slack, cores).run(partition)
    chosen = cells[partition.ordering]
    chunks = chosen.chunks(chosen.split(partition))
    weights = chosen.weights(chunks, partition.haste)
    return lay_out(graph, [chunk.elements for chunk in chunks], weights, can)


@dataclass(frozen=True, eq=False)
class _Try:
    """A partition that was tried, and what came of it."""

    partition: Partition
    calls: int
    costs: Sequence[float]  # by number of cores, beside exact dependencies: 1.02 is 2 % longer


class _Search:
    def __init__(
        self,
        graph: Elements,
        can: Capabilities,
        cells: Sequence[Cells],  # by ordering
        depths: Sequence[int],  # by layer
        pairs: Pairs,
        calls: int,
        slack: float,
        cores: int | None,
    ) -> None:
        self._can, self._cells, self._depths, self._pairs = can, cells, depths, pairs
        self._calls, self._slack = calls, slack
        self._cores = [cores] if cores else [*likely_cores(graph), _endless(graph)]
        self._exact = [seconds or 1.0 for seconds in exact_makespans(graph, self._cores)]
        self._best = [inf] * len(self._cores)  # the least cost seen, by number of cores
        self._spared = [0.0] * len(self._cores)  # of a cost, what is not counted
        self._hard = [0.0] * len(self._cores)  # the latest cost, less that
        self._many = _endless(graph)
        self._graph, self._elements = graph, len(graph)
        self._most = min(max(_EFFORT_LEAST, _EFFORT_EACH * len(graph)), _EFFORT_MOST)
        self._starts, self._hasty = _STARTS, True
        if _is_small(graph):  # calls are plenty there: cuts alone are found better
            self._most, self._starts, self._hasty = _EFFORT_SMALL, _STARTS_SMALL, False
        self._spent = 0
        self._glance = len(depths) * cells[0].blocks // 8  # at cuts
        self._done: set[object] = set()
        self._random = random.Random(0)  # the same graph has the same plan, always

    def run(self, uncut: Partition) -> Partition:
        """Search: first patterns of cuts, then whatever makes the best of these better."""
        best = self._try(uncut, inf)
        assert best is not None
        if max(best.costs) <= 1 + self._slack / 4:
            return uncut
        tried = [best]
        for partition in self._patterns():
            # Worth a full look only where it may become one of those to begin with.
            worst = self._rank(tried[self._starts - 1])[0] if len(tried) >= self._starts else inf
            if found := self._try(partition, worst):
                tried = sorted([*tried, found], key=self._rank)[: self._starts]
        for number, start in enumerate(tried):
            share = (self._most - self._spent) // (len(tried) - number)
            best = min(best, self._climb(start, self._spent + share), key=self._rank)
        return best.partition

    def _ended(self, effort: int) -> bool:
        tries = len(self._done)
        most = _MOST_EACH * self._elements
        return tries >= most or (self._spent >= effort and tries >= _LEAST)

    def _try(self, partition: Partition, limit: float) -> _Try | None:
        """Sketch the arrays that cuts leave, and see how long they take.

        None if it was tried before, takes too many calls, or is sure to rank above ``limit``.
        """
        cells = self._cells[partition.ordering]
        self._spent += self._glance
        split = cells.split(partition)
        if cells.count(split) > self._calls:
            return None
        walked = cells.walked
        chunks = cells.chunks(split)
        self._spent += (cells.walked - walked) // 2
        haste = frozenset(partition.haste.items())
        key = partition.ordering, frozenset([chunk.number for chunk in chunks]), haste
        if key in self._done:
            return None
        self._done.add(key)
        weights = cells.weights(chunks, partition.haste)
        jobs = estimate(self._graph, chunks, weights, self._pairs, self._can)
        self._spent += _SKETCH + sum([len(chunk.above) for chunk in chunks]) // 8
        # At best as long as with exact dependencies, as far as was seen.
        costs = [min(1.0, best) for best in self._best]
        for at, made in self._makespans(jobs):
            costs[at] = made / self._exact[at]
            self._see(at, costs[at])
            if self._mark(costs) > limit:
                return None
        return _Try(partition, len(jobs), costs)

    def _makespans(self, jobs: Sequence[Job]) -> Iterator[tuple[int, float]]:
        """Yield each number of cores, by its place, and the makespan on it.

        What cost most before is likely to do so again, and may save the rest. Where fewer cores
        are equal to unlimited ones, no more are looked at.
        """
        shortest, enough = 0.0, inf
        order = sorted(
            range(len(self._cores)),
            key=lambda at: (self._cores[at] < self._many, -self._hard[at]),
        )
        for at in order:
            made, cores = shortest, self._cores[at]
            if cores >= self._many:
                made = shortest = makespan(jobs, cores, window=self._can.window)
            elif cores < enough:
                made = makespan(jobs, cores, window=self._can.window)
                self._spent += self._effort(jobs)
                if made <= shortest:
                    enough = cores
            yield at, made

    def _rank(self, one: _Try) -> tuple[float, ...]:
        """Return the rank of a candidate among all that were seen so far; the least is the best.

        Fewer calls count only among candidates with a makespan that is near enough to the best.
        """
        mark = self._mark(one.costs)
        return round(max(mark, 1 + self._slack / 2), 4), one.calls, mark

    def _see(self, at: int, cost: float) -> None:
        """Record a cost: whether it is the lowest so far, and which costs are too high."""
        if cost < self._best[at]:
            self._best[at] = cost
            lowest = min(self._best)
            self._spared = [_SPARED * (best - lowest) for best in self._best]
        self._hard[at] = cost - self._spared[at]

    def _mark(self, costs: Sequence[float]) -> float:
        """Weigh costs: the cube root of the mean cube of what they are above 1, so the worst most.

        Where even the lowest cost seen is high, most of that is spared: it cannot be helped.
        """
        above = [
            max(0.0, cost - 1 - spare) for cost, spare in zip(costs, self._spared, strict=True)
        ]
        return 1 + cbrt(sum([one**3 for one in above]) / len(above))

    def _effort(self, jobs: Sequence[Job]) -> int:
        """Estimate the effort of a simulation: it is largest where arrays are aligned."""
        if len({job.cpus for job in jobs}) > 1:
            return self._elements
        along = sum(
            [len(job.seconds) for job in jobs if any(wait.kind == "each" for wait in job.waits)]
        )
        return self._elements // 3 + along

    def _patterns(self) -> Iterator[Partition]:
        """Yield cuts to begin with: a range of depths in as many pieces as the calls allow."""
        ranges = combinations_with_replacement(sorted(set(self._depths)), 2)
        growths = _GROWTHS if self._hasty else _GROWTHS[1:]
        choices = list(product(range(len(self._cells)), growths, ranges))
        self._random.shuffle(choices)
        for number, growth, (first, last) in choices:
            if self._spent > self._most * 2 // 5:
                return
            cells = self._cells[number]
            for count in _PIECES:
                pieces = cells.ordering.pieces(count, growth)
                at = tuple(pieces if first <= depth <= last else () for depth in self._depths)
                partition = Partition(number, tuple(range(cells.blocks)), at)
                self._spent += self._glance
                if cells.count(cells.split(partition)) <= self._calls:
                    yield partition
                    break

    def _climb(self, start: _Try, until: int) -> _Try:
        """Change cuts at random, and keep what is no worse; at first, what is a little worse."""
        best = here = start
        began = self._spent
        idle = 0
        while not self._ended(until) and idle < _IDLE:
            warmth = _WARMTH * max(0, until - self._spent) / max(1, until - began)
            limit = self._rank(here)[0] + warmth * self._random.random()
            cells = self._cells[here.partition.ordering].cells if self._hasty else 0
            found = self._try(changed(here.partition, self._depths, cells, self._random), limit)
            idle = idle + 1 if found is None else 0
            if found and self._rank(found) <= max(self._rank(here), (limit, inf)):
                here = found
                best = min(best, here, key=self._rank)
        return best


def _is_small(graph: Elements) -> bool:
    return sum(map(len, graph.tasks)) <= _SMALL


def likely_cores(graph: Elements, shares: Sequence[float] = _SHARES) -> list[int]:
    """Guess numbers of cores at which it matters how the graph is laid out.

    They are ``shares`` of its mean width: of what it keeps busy if there is no end of cores.
    """
    work = sum(seconds * cpus for seconds, cpus in zip(graph.seconds, graph.cpus, strict=True))
    width = work / (max(graph.below, default=0.0) or 1.0)
    most = max(graph.cpus, default=1)
    return sorted({max(most, round(share * width)) for share in shares})


def _endless(graph: Elements) -> int:
    """Return a number of cores at which no element ever waits for one."""
    return sum(graph.cpus)
