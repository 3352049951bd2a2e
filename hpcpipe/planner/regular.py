"""Regular workflows become arrays whose dependencies are exact, as far as the calls suffice.

A node's tasks are cut into batches such that each batch stands in one plain relation to every
batch it needs:

* *aligned*: its elements need one element each, in order: an elementwise dependency;
* *whole*: all of its elements need all of that batch: one plain dependency;
* *one element*: all of its elements need the same single element of that batch;
* *relaxed*: it waits for more than it needs, since exactness would cost too many calls.

The cut that makes this so needs no knowledge of axes. Where every task needs one element of a
batch, the k-th task that needs element i goes to the k-th array: each array then holds every
element at most once, and is aligned. So a parent over subjects whose child is mapped over
subjects and widths yields one array per width.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

from hpcpipe.graph.axes import Edge
from hpcpipe.jobs import Capabilities
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.planner.batch import Batch, InFlightJob, Limits, Wait
from hpcpipe.planner.fusion import batch_of, by_resources, make_chains


def make_exact(plan: Plan, capabilities: Capabilities, limits: Limits) -> tuple[Batch, ...]:
    """Compile a plan node by node; a batch that has to wait for too much is marked as relaxed."""
    batches: list[Batch] = []
    # Arrays a node may be cut into before its dependencies are relaxed instead.
    splits = max(2, limits.calls // len(plan.nodes))
    size = limits.array_size if capabilities.arrays and limits.array_size else 1
    places = {name: _Places(node) for name, node in plan.nodes.items()}
    for chain in make_chains(plan, capabilities, limits):
        for tasks, resources in by_resources(plan, chain):
            cutter = _Cutter(chain[0], places, batches, capabilities, splits)
            axes = _split_axes(plan, chain[-1], splits)
            cut = cutter.cut(tasks, axes) if size > 1 else cutter.singly(tasks)
            for part, waits, pivot in cut:
                for chunk, indices in _chunks(part, pivot, size, capabilities.first_index):
                    batch = batch_of(chain, chunk, indices, resources, waits)
                    for node in chain:
                        places[node.node.name].put(chunk, indices, len(batches))
                    batches.append(batch)
    return tuple(batches)


class _Places:
    """Where each task of a node is found: the batch or standing job, and its index there."""

    def __init__(self, node: NodePlan) -> None:
        self.batch = array("i", [-1]) * len(node.fates)  # -1: done, nothing to wait for
        self.index = array("q", [-1]) * len(node.fates)  # -1: a plain job
        self.standing: list[InFlightJob] = []  # batch numbers -2 and down
        jobs: dict[str, int] = {}
        for task, place in node.in_flight.items():
            if place.job not in jobs:
                jobs[place.job] = -2 - len(self.standing)
                self.standing.append(InFlightJob(place.job))
            self.batch[task] = jobs[place.job]
            self.index[task] = -1 if place.index is None else place.index

    def put(self, tasks: Sequence[int], indices: Sequence[int] | None, number: int) -> None:
        """Record in which batch, and at which index, tasks are; those of a chain that are done too,
        since what needs those that are not has to wait for the same element."""
        for task in tasks:
            self.batch[task] = number
        for task, index in zip(tasks, indices or (), strict=False):
            self.index[task] = index

    def on(self, number: int) -> int | InFlightJob:
        """Return the job that a batch number stands for."""
        return number if number >= 0 else self.standing[-2 - number]


def _split_axes(plan: Plan, node: NodePlan, splits: int) -> Sequence[int] | None:
    """Return the number of each task's part, if a node should be cut for partial gathers over it.

    A gather over some of its axes waits for whole batches only if there is one batch for every
    value of the others. None without such a gather, or if there would be too many parts.
    """
    for other in plan.nodes.values():
        for edge in other.edges:
            if edge.upstream != node.node.name or edge.single or edge.starts:
                continue
            parts = set(edge.base)
            if 1 < len(parts) <= splits:
                part = array("q", bytes(8 * len(node.fates)))
                for number, base in enumerate(sorted(parts)):
                    for offset in edge.offsets:
                        part[base + offset] = number
                return part
    return None


# Tasks of one node, what they wait for, and the indices that keep them aligned.
Part = tuple[Sequence[int], tuple[Wait, ...], Sequence[int] | None]


class _Cutter:
    """Cuts a node's tasks into parts that stand in one relation to each batch they need."""

    def __init__(
        self,
        node: NodePlan,
        places: dict[str, _Places],
        batches: Sequence[Batch],
        capabilities: Capabilities,
        splits: int,
    ) -> None:
        self._splits = splits
        self._single = [(e, places[e.upstream]) for e in node.edges if e.single]
        self._many = [(e, places[e.upstream]) for e in node.edges if not e.single]
        self._fates = node.fates
        self._batches = batches
        self._can = capabilities

    def cut(self, tasks: Sequence[int], parts: Sequence[int] | None) -> Iterator[Part]:
        """Yield parts that stand in one relation to each batch they need."""
        # Batches above: a parent in ten chunks makes ten classes, which are not ten splits.
        above = {places.batch[edge.base[task]] for edge, places in self._single for task in tasks}
        bound = self._splits * max(1, len(above))
        for gathers in (self._many, []):  # at worst, what is gathered is waited for as a whole
            classes: dict[Hashable, array[int]] = defaultdict(lambda: array("q"))
            for task in tasks:
                classes[self._signature(task, parts, gathers)].append(task)
            if len(classes) <= bound:
                for same in classes.values():
                    yield from self._align(same)
                return
        yield tasks, self._waits(tasks, None), None

    def singly(self, tasks: Sequence[int]) -> Iterator[Part]:
        """Yield every task by itself, where there are no arrays."""
        for task in tasks:
            yield [task], self._waits([task], None), None

    def _signature(
        self, task: int, parts: Sequence[int] | None, gathers: Sequence[tuple[Edge, _Places]]
    ) -> Hashable:
        """Return which batches a task needs; tasks that differ in it must not share a batch."""
        single = tuple(places.batch[edge.base[task]] for edge, places in self._single)
        many = tuple(
            frozenset(places.batch[parent] for parent in edge.parents(task))
            for edge, places in gathers
        )
        return (parts[task] if parts is not None else 0, single, many)

    def _align(self, tasks: Sequence[int]) -> Iterator[Part]:
        """Cut tasks of one signature so that the edge with most distinct elements is aligned."""
        pivot = self._pivot(tasks)
        if pivot is None:
            yield tasks, self._waits(tasks, None), None
            return
        arrays: list[array[int]] = []
        seen: dict[int, int] = defaultdict(int)
        for task, index in zip(tasks, pivot, strict=True):
            if seen[index] == len(arrays):
                arrays.append(array("q"))
            arrays[seen[index]].append(task)
            seen[index] += 1
        if len(arrays) <= self._splits:
            for part in arrays:
                yield from self._in_order(part)
        elif len(seen) <= self._splits and self._can.element_dependency:
            of: dict[int, array[int]] = defaultdict(lambda: array("q"))
            for task, index in zip(tasks, pivot, strict=True):
                of[index].append(task)
            for part in of.values():
                yield part, self._waits(part, None), None
        else:
            yield tasks, self._waits(tasks, None), None

    def _pivot(self, tasks: Sequence[int]) -> list[int] | None:
        """Choose the edge to align on: the indices its tasks need, or None if none is mapped."""
        best: list[int] | None = None
        distinct = 1
        for edge, places in self._single:
            if not self._can.elementwise or places.batch[edge.base[tasks[0]]] == -1:
                continue
            indices = [places.index[edge.base[task]] for task in tasks]
            count = len(set(indices))
            if count > distinct:
                best, distinct = indices, count
        return best

    def _in_order(self, tasks: Sequence[int]) -> Iterator[Part]:
        """Put an aligned part in the order of the elements it needs."""
        pivot = self._pivot(tasks)
        if pivot is None:
            yield tasks, self._waits(tasks, None), None
            return
        order = sorted(range(len(tasks)), key=pivot.__getitem__)
        ordered = array("q", [tasks[at] for at in order])
        indices = [pivot[at] for at in order]
        contiguous = indices == list(range(indices[0], indices[0] + len(indices)))
        aligned = indices if contiguous or self._can.sparse else None
        yield ordered, self._waits(ordered, aligned), aligned

    def _waits(self, tasks: Sequence[int], indices: Sequence[int] | None) -> tuple[Wait, ...]:
        """Return what a part waits for, as exactly as the scheduler can express it."""
        waits: dict[tuple[int | InFlightJob, str, int | None], Wait] = {}
        for edge, places in (*self._single, *self._many):
            needed: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
            for position, task in enumerate(tasks):
                if self._fates[task] != RUN:  # the first task of a chain may be done
                    continue
                for parent in edge.parents(task):
                    number = places.batch[parent]
                    if number != -1:
                        whose, elements = needed[number]
                        whose.append(position)
                        elements.append(places.index[parent])
            for number, (whose, elements) in needed.items():
                count = len(tasks) if len(set(whose)) == len(tasks) else 0
                wait = self._wait(places.on(number), elements, indices, count)
                waits[wait.on, wait.kind, wait.element] = wait
        wholly = {on for on, kind, element in waits if kind == "all" and element is None}
        return tuple(
            w for key, w in waits.items() if w.on not in wholly or key == (w.on, "all", None)
        )

    def _wait(
        self, on: int | InFlightJob, elements: list[int], indices: Sequence[int] | None, count: int
    ) -> Wait:
        """Return how ``count`` tasks, or (0) only some of a part, need elements of one job."""
        distinct = set(elements)
        if distinct == {-1}:
            return Wait(on, relaxed=not count)
        paired = count and indices is not None and elements == list(indices)
        if paired and (self._can.subset or count == self._size(on)):
            return Wait(on, "each")
        if len(distinct) == 1 and self._can.element_dependency and self._size(on) != 1:
            return Wait(on, element=elements[0], relaxed=not count)
        exact = len(distinct) == self._size(on) and len(elements) == count * len(distinct)
        return Wait(on, relaxed=not exact)

    def _size(self, on: int | InFlightJob) -> int:
        return self._batches[on].elements if isinstance(on, int) else -1


def _chunks(
    tasks: Sequence[int], aligned: Sequence[int] | None, size: int, first: int
) -> Iterator[tuple[Sequence[int], Sequence[int] | None]]:
    """Cut a part to the site's array limit, and number each chunk anew unless it is aligned."""
    for start in range(0, len(tasks), size):
        chunk = tasks[start : start + size]
        if aligned is not None:
            yield chunk, aligned[start : start + size]
        else:
            yield chunk, range(first, first + len(chunk)) if len(chunk) > 1 else None
