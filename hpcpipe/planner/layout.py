"""Parts of a graph become arrays: their order, their indices, and what each waits for.

This is the only place that decides how an array waits for another. It takes what the elements of
one need of the other as a `Link`, which `lay_out` finds element by element, and the search, many
times over, from cells (`hpcpipe.planner.search.estimate`). ::

    a0 a1 a2 a3      each: b has the indices of a, and an element waits for its namesake
    |  |  |  |
    b0 b1 b2 b3      one:  all of c need a2 alone
       c0 c1 c2      all:  anything else
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from hpcpipe.jobs import Capabilities
from hpcpipe.planner.batch import Batch, InFlightJob, Wait
from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.simulate import Job


@dataclass(frozen=True, eq=False)
class Array:
    """Elements in the order of their indices, and the waits for earlier arrays, by number."""

    elements: Sequence[int]
    indices: Sequence[int]
    waits: Sequence[Wait]  # all on numbers


class Link(NamedTuple):
    """What elements need of another array.

    ``partners`` maps them to the elements that they need, if each needs one and no two the same;
    ``lone`` is the only element that is needed, if one is.
    """

    dependencies: int
    partners: Mapping[int, int] | None
    lone: int | None


def lay_out(
    graph: Elements, chunks: Sequence[Sequence[int]], weights: Sequence[float], can: Capabilities
) -> list[Array]:
    """Make an array of each chunk, in the order to submit them; see `arrange`."""
    where = [0] * len(graph)
    for number, chunk in enumerate(chunks):
        for element in chunk:
            where[element] = number
    links = [_links(graph, chunk, where) for chunk in chunks]
    return _without_implied(arrange(chunks, weights, links, can))


def _links(graph: Elements, chunk: Sequence[int], where: Sequence[int]) -> dict[int, Link]:
    needs: dict[int, list[tuple[int, int]]] = {}
    for element in chunk:
        for parent in graph.parents[element]:
            needs.setdefault(where[parent], []).append((element, parent))
    links = {}
    for number, pairs in needs.items():
        partners, needed = dict(pairs), {parent for _, parent in pairs}
        paired = 1 < len(chunk) == len(pairs) == len(partners) == len(needed)
        lone = pairs[0][1] if len(needed) == 1 else None
        links[number] = Link(len(pairs), partners if paired else None, lone)
    return links


def arrange(
    chunks: Sequence[Sequence[int]],
    weights: Sequence[float],
    links: Sequence[Mapping[int, Link]],
    can: Capabilities,
) -> list[Array]:
    """Make an array of each chunk, in the order to submit them.

    That order is the scheduler's order of preference, too: of the chunks whose upstream ones are
    before, the one with the least weight comes next.
    """
    order = in_order(weights, links)
    rank = {chunk: number for number, chunk in enumerate(order)}
    arrays: list[Array] = []
    for number in order:
        above = {rank[chunk]: link for chunk, link in links[number].items()}
        arrays.append(_array(chunks[number], above, arrays, can))
    return arrays


def in_order(weights: Sequence[float], needs: Sequence[Collection[int]]) -> list[int]:
    """Order chunks so that each comes after those it needs, the least weight first."""
    missing = [len(above) for above in needs]
    below: list[list[int]] = [[] for _ in needs]
    for number, above in enumerate(needs):
        for parent in above:
            below[parent].append(number)
    ready = [(weights[number], number) for number, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        number = heappop(ready)[1]
        order.append(number)
        for child in below[number]:
            missing[child] -= 1
            if not missing[child]:
                heappush(ready, (weights[child], child))
    return order


def _array(
    chunk: Sequence[int], above: Mapping[int, Link], arrays: Sequence[Array], can: Capabilities
) -> Array:
    """Return an array of a chunk: its indices, and its waits as exact as the scheduler allows."""
    count = len(chunk)
    aligned = _aligned(chunk, above, arrays, can)
    elements, indices, each = aligned or (
        chunk,
        range(can.first_index, can.first_index + count),
        (),
    )
    waits = [Wait(one, "each") for one in each]
    whole: list[Wait] = []
    for one, link in sorted(above.items()):
        theirs = arrays[one]
        if one in each:
            continue
        if link.lone is not None and can.element_dependency and len(theirs.elements) > 1:
            index = theirs.indices[theirs.elements.index(link.lone)]
            waits.append(Wait(one, "all", index, link.dependencies != count))
        else:
            exact = link.dependencies == count * len(theirs.elements)
            whole.append(Wait(one, relaxed=not exact))
    return Array(elements, indices, (*waits, *whole))


def _aligned(
    chunk: Sequence[int], above: Mapping[int, Link], arrays: Sequence[Array], can: Capabilities
) -> tuple[Sequence[int], Sequence[int], Sequence[int]] | None:
    """Number elements as those they need in one array, where the scheduler can align arrays.

    Returns the elements in the order of these indices, the indices, and the arrays that they are
    aligned with, or None.
    """
    count = len(chunk)
    paired = {
        number: link.partners
        for number, link in above.items()
        if link.partners
        and can.elementwise
        and (can.subset or count == len(arrays[number].elements))
    }
    if not paired:
        return None
    index_of = {
        one: dict(zip(arrays[one].elements, arrays[one].indices, strict=True)) for one in paired
    }
    pivot = max(paired, key=lambda number: (len(arrays[number].elements) == count, number))
    mine = {}
    for element in chunk:
        index = index_of[pivot].get(paired[pivot].get(element, -1))
        if index is None:  # an estimate that does not hold for this part of a cell
            return None
        mine[element] = index
    elements = sorted(chunk, key=mine.__getitem__)
    indices: Sequence[int] = [mine[element] for element in elements]
    if indices[-1] - indices[0] == count - 1:
        indices = range(indices[0], indices[-1] + 1)
    elif not can.sparse:
        return None
    each = [
        one
        for one, partners in paired.items()
        if all(index_of[one].get(partners.get(e, -1)) == index for e, index in mine.items())
    ]
    return elements, indices, each


def _without_implied(arrays: Sequence[Array]) -> list[Array]:
    """Drop waits for the whole of an array for which another wait has already waited."""
    closure: list[int] = []  # by array: the arrays that have ended when it starts, as bits
    needed = []
    for array in arrays:
        above = [wait.on for wait in array.waits if isinstance(wait.on, int)]
        whole = [wait.kind == "all" and wait.element is None for wait in array.waits]
        before = 0
        for one, entire in zip(above, whole, strict=True):
            before |= closure[one] | (1 << one if entire else 0)
        closure.append(before)
        implied = [any(closure[other] >> one & 1 for other in above) for one in above]
        waits = [
            wait
            for wait, entire, also in zip(array.waits, whole, implied, strict=True)
            if not (entire and also)
        ]
        needed.append(replace(array, waits=waits))
    return needed


def make_jobs(graph: Elements, arrays: Sequence[Array], seconds: Sequence[float]) -> list[Job]:
    """Return arrays as the simulator takes them; ``seconds`` are those of each element."""
    return [
        Job([seconds[one] for one in a.elements], a.indices, a.waits, graph.cpus[a.elements[0]])
        for a in arrays
    ]


def make_batch(graph: Elements, array: Array, can: Capabilities) -> Batch:
    """Return an array as the batch to be submitted."""
    tasks = [task for element in array.elements for task in graph.tasks[element]]
    numbers = sorted({number for number, _ in tasks})
    starts = None
    if len(tasks) > len(array.elements):
        starts = [0]
        for element in array.elements:
            starts.append(starts[-1] + len(graph.tasks[element]))
    resources, _, strand = graph.places[array.elements[0]]
    return Batch(
        tuple(graph.nodes[number] for number in numbers),
        [index for _, index in tasks],
        array.indices if len(array.elements) > 1 else None,
        resources,
        (*array.waits, *_in_flight(graph, array, can)),
        [numbers.index(number) for number, _ in tasks] if len(numbers) > 1 else None,
        starts,
        max(graph.lanes[element] for element in array.elements),
        strand,
    )


def _in_flight(graph: Elements, array: Array, can: Capabilities) -> list[Wait]:
    """List what an array waits for of jobs of earlier submissions."""
    needed: dict[InFlightJob, set[int]] = {}
    whose: dict[InFlightJob, int] = {}
    for element in array.elements:
        for job, index in sorted(graph.in_flight.get(element, ()), key=lambda one: one[0].job):
            needed.setdefault(job, set()).add(index)
            whose[job] = whose.get(job, 0) + 1
    waits = []
    for job, indices in needed.items():
        exact = len(indices) == 1 and whose[job] == len(array.elements)
        single = len(indices) == 1 and min(indices) >= 0 and can.element_dependency
        waits.append(Wait(job, element=min(indices) if single else None, relaxed=not exact))
    return waits
