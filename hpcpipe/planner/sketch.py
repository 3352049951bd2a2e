"""What arrays would come of cuts, found without a look at single elements.

It is what `hpcpipe.planner.arrays` makes of the same parts, but for two things, which a search can
bear: a cell that is in several arrays is taken to wait, and to be waited for, as a whole; and
elements are paired only where their layers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hpcpipe.model import Capabilities
from hpcpipe.planner.arrays import in_order
from hpcpipe.planner.cells import Chunk
from hpcpipe.planner.elements import Elements
from hpcpipe.planner.simulate import Job

_NONE = -1  # no element

# By a layer and one above it: which element needs which; at most one each way.
Pairs = Mapping[tuple[int, int], Mapping[int, int]]


def find_pairs(graph: Elements, layer_of: Sequence[int]) -> Pairs:
    """Find the layers of which no element needs two of another layer, nor is needed by two."""
    needs: dict[tuple[int, int], dict[int, int]] = {}
    needed: dict[tuple[int, int], set[int]] = {}
    crossed: set[tuple[int, int]] = set()
    for element, parents in enumerate(graph.parents):
        for parent in parents:
            layers = layer_of[element], layer_of[parent]
            if layers in crossed:
                continue
            mine, theirs = needs.setdefault(layers, {}), needed.setdefault(layers, set())
            if element in mine or parent in theirs:
                crossed.add(layers)
                del needs[layers], needed[layers]
            else:
                mine[element] = parent
                theirs.add(parent)
    return needs


def sketch(chunks: Sequence[Chunk], pairs: Pairs, can: Capabilities) -> list[Job]:
    """Give chunks as arrays in the order to submit them, as the simulator takes them."""
    homes: dict[int, list[int]] = {}  # by cell: the chunks it is in
    for number, chunk in enumerate(chunks):
        for cell in chunk.cells:
            homes.setdefault(cell, []).append(number)
    needs = [_needs(chunk, homes) for chunk in chunks]
    order = in_order([chunk.weight for chunk in chunks], needs)
    rank = {number: at for at, number in enumerate(order)}
    laid: list[Sequence[int]] = []  # the elements of each array in the order of their indices
    jobs: list[Job] = []
    for number in order:
        chunk = chunks[number]
        above = {rank[other]: count for other, count in needs[number].items()}
        job = Job(chunk.seconds, range(len(chunk.elements)), list(above), cpus=chunk.cpus)
        elements = chunk.elements
        if can.elementwise and pairs and len(elements) > 1:
            partners = {
                one: pairs[layers]
                for one, count in above.items()
                if count == len(elements)
                and (layers := (chunk.layer, chunks[order[one]].layer)) in pairs
            }
            if partners:
                elements, job = _along(chunk, job, partners, laid, jobs, can)
        if can.element_dependency and chunk.lone:
            lone = {
                one: laid[one].index(element)
                for cell, element in chunk.lone.items()
                if len(homes[cell]) == 1
                and len(laid[one := rank[homes[cell][0]]]) > 1
                and chunk.above[cell] == above[one]
                and one not in job.each
            }
            if lone:
                job = replace(
                    job,
                    all=[one for one in job.all if one not in lone],
                    elements=list(lone.items()),
                )
        jobs.append(job)
        laid.append(elements)
    return jobs


def _needs(chunk: Chunk, homes: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Count a chunk's dependencies on each other one."""
    needs: dict[int, int] = {}
    for cell, count in chunk.above.items():
        for number in homes[cell]:
            needs[number] = needs.get(number, 0) + count
    return needs


def _along(
    chunk: Chunk,
    job: Job,
    partners: Mapping[int, Mapping[int, int]],
    laid: Sequence[Sequence[int]],
    jobs: Sequence[Job],
    can: Capabilities,
) -> tuple[Sequence[int], Job]:
    """Let an array go along with those that it pairs with, where the scheduler can."""
    count = len(chunk.elements)
    index_of = {one: dict(zip(laid[one], jobs[one].indices, strict=True)) for one in partners}
    pivot = max(partners, key=lambda one: (len(laid[one]) == count, one))
    mine = {}
    for element in chunk.elements:
        index = index_of[pivot].get(partners[pivot].get(element, _NONE))
        if index is None:  # of a cell in several arrays, another part has a partner, or is one
            return chunk.elements, job
        mine[element] = index
    elements = sorted(chunk.elements, key=mine.__getitem__)
    indices = [mine[element] for element in elements]
    if indices[-1] - indices[0] != count - 1 and not can.sparse:
        return chunk.elements, job
    each = [
        one
        for one, needed in partners.items()
        if all(index_of[one].get(needed.get(e, _NONE)) == mine[e] for e in elements)
    ]
    second = dict(zip(chunk.elements, chunk.seconds, strict=True))
    whole = [one for one in job.all if one not in each]
    return elements, replace(
        job, seconds=[second[e] for e in elements], indices=indices, all=whole, each=each
    )
