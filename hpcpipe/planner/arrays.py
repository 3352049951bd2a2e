"""Elements in given parts become arrays: their order, their indices, and what each waits for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from hpcpipe.model import Capabilities
from hpcpipe.planner.batch import Batch, Standing, Wait
from hpcpipe.planner.elements import Elements


@dataclass(frozen=True, eq=False)
class Array:
    """Elements in the order of their indices, and the arrays, by number, that they wait for.

    ``all`` are waited for as a whole, ``each`` element by element, ``one`` maps an array to the
    index of the only element of it that is waited for; ``relaxed`` are those of which some
    element waits for more than it needs.
    """

    elements: Sequence[int]
    indices: Sequence[int]
    all: Sequence[int]
    each: Sequence[int]
    one: dict[int, int]
    relaxed: frozenset[int]


def lay_out(
    graph: Elements, parts: Sequence[Sequence[int]], can: Capabilities, size: int
) -> list[Array]:
    """Make arrays of the parts, at most ``size`` elements each, in the order to submit them.

    That order is the scheduler's order of preference, too. So of the arrays whose upstream ones
    are before, the one with the longest way down comes next; likewise among elements, except where
    their indices must be those of the elements they wait for.
    """
    chunks = [
        ordered[at : at + size]
        for part in parts
        for ordered in [sorted(part, key=lambda element: -graph.below[element])]
        for at in range(0, len(part), size)
    ]
    where = [0] * len(graph)
    for number, chunk in enumerate(chunks):
        for element in chunk:
            where[element] = number
    needs = [_needs(graph, chunk, where) for chunk in chunks]
    urgency = [-sum(graph.below[element] for element in chunk) / len(chunk) for chunk in chunks]
    order = in_order(urgency, needs)
    rank = {chunk: number for number, chunk in enumerate(order)}
    index_of = [0] * len(graph)
    closure: list[int] = []  # by array: the arrays that have ended when it starts, as bits
    arrays: list[Array] = []
    for number in order:
        above = {rank[chunk]: pairs for chunk, pairs in needs[number].items()}
        array = _array(chunks[number], above, arrays, index_of, can)
        before = 0
        for one in array.all:
            before |= 1 << one
        for one in (*array.all, *array.each, *array.one):
            before |= closure[one]
        implied = {one for one in array.all if _implied(one, array, closure)}
        closure.append(before)
        arrays.append(
            Array(
                array.elements,
                array.indices,
                [one for one in array.all if one not in implied],
                array.each,
                array.one,
                array.relaxed,
            )
            if implied
            else array
        )
        for index, element in zip(array.indices, array.elements, strict=True):
            index_of[element] = index
    return arrays


def _implied(one: int, array: Array, closure: Sequence[int]) -> bool:
    """Tell whether what an array waits for has itself waited for another as a whole."""
    return any(
        closure[other] >> one & 1 for other in (*array.all, *array.each, *array.one) if other != one
    )


# Pairs of an element and the element of another array that it needs.
_Pairs = list[tuple[int, int]]


def _needs(graph: Elements, chunk: Sequence[int], where: Sequence[int]) -> dict[int, _Pairs]:
    needs: dict[int, _Pairs] = {}
    for element in chunk:
        for parent in graph.parents[element]:
            at = where[parent]
            if at in needs:
                needs[at].append((element, parent))
            else:
                needs[at] = [(element, parent)]
    return needs


def in_order(weight: Sequence[float], needs: Sequence[Collection[int]]) -> list[int]:
    """Order chunks so that each comes after those it needs, the least weight first."""
    missing = [len(above) for above in needs]
    below: list[list[int]] = [[] for _ in needs]
    for number, above in enumerate(needs):
        for parent in above:
            below[parent].append(number)
    ready = [(weight[number], number) for number, count in enumerate(missing) if not count]
    heapify(ready)
    order = []
    while ready:
        number = heappop(ready)[1]
        order.append(number)
        for child in below[number]:
            missing[child] -= 1
            if not missing[child]:
                heappush(ready, (weight[child], child))
    return order


def _array(
    chunk: Sequence[int],
    above: dict[int, _Pairs],
    arrays: Sequence[Array],
    index_of: Sequence[int],
    can: Capabilities,
) -> Array:
    """Give a chunk its indices: those of an array it pairs with, or the lowest there are."""
    count = len(chunk)
    paired = {
        number: pairs
        for number, pairs in above.items()
        if can.elementwise
        and (can.subset or count == len(arrays[number].elements))
        and 1 < count == len(pairs) == len({element for element, _ in pairs})
        and len({parent for _, parent in pairs}) == count
    }
    elements: Sequence[int] = chunk
    indices: Sequence[int] = range(can.first_index, can.first_index + count)
    each: list[int] = []
    if paired:
        pivot = max(paired, key=lambda number: (len(arrays[number].elements) == count, number))
        order = sorted((index_of[parent], element) for element, parent in paired[pivot])
        aligned = [index for index, _ in order]
        contiguous = aligned[-1] - aligned[0] == count - 1
        if contiguous or can.sparse:
            indices = range(aligned[0], aligned[-1] + 1) if contiguous else aligned
            elements = [element for _, element in order]
            mine = {element: index for index, element in order}
            each = [
                number
                for number, pairs in paired.items()
                if all(mine[element] == index_of[parent] for element, parent in pairs)
            ]
    one: dict[int, int] = {}
    whole: list[int] = []
    relaxed: set[int] = set()
    for number, pairs in above.items():
        if number in each:
            continue
        theirs = arrays[number]
        needed = {parent for _, parent in pairs}
        if len(needed) == 1 and can.element_dependency and len(theirs.elements) > 1:
            one[number] = index_of[needed.pop()]
            exact = len(pairs) == count
        else:
            whole.append(number)
            exact = len(pairs) == count * len(theirs.elements)
        if not exact:
            relaxed.add(number)
    return Array(elements, indices, sorted(whole), each, one, frozenset(relaxed))


def make_batch(graph: Elements, array: Array, can: Capabilities) -> Batch:
    """Give an array as the batch to be submitted."""
    tasks = [task for element in array.elements for task in graph.tasks[element]]
    numbers = sorted({number for number, _ in tasks})
    starts = None
    if len(tasks) > len(array.elements):
        starts = [0]
        for element in array.elements:
            starts.append(starts[-1] + len(graph.tasks[element]))
    waits = [Wait(one, "each") for one in array.each]
    waits += [
        Wait(one, element=index, relaxed=one in array.relaxed) for one, index in array.one.items()
    ]
    waits += [Wait(one, relaxed=one in array.relaxed) for one in array.all]
    resources, _, strand = graph.places[array.elements[0]]
    return Batch(
        tuple(graph.nodes[number] for number in numbers),
        [index for _, index in tasks],
        array.indices if len(array.elements) > 1 else None,
        resources,
        (*waits, *_standing(graph, array, can)),
        [numbers.index(number) for number, _ in tasks] if len(numbers) > 1 else None,
        starts,
        max(graph.lanes[element] for element in array.elements),
        strand,
    )


def _standing(graph: Elements, array: Array, can: Capabilities) -> list[Wait]:
    """Say which jobs of earlier submissions an array waits for."""
    needed: dict[Standing, set[int]] = {}
    whose: dict[Standing, int] = {}
    for element in array.elements:
        for job, index in sorted(graph.standing.get(element, ()), key=lambda one: one[0].job):
            needed.setdefault(job, set()).add(index)
            whose[job] = whose.get(job, 0) + 1
    waits = []
    for job, indices in needed.items():
        exact = len(indices) == 1 and whose[job] == len(array.elements)
        single = len(indices) == 1 and min(indices) >= 0 and can.element_dependency
        waits.append(Wait(job, element=min(indices) if single else None, relaxed=not exact))
    return waits
