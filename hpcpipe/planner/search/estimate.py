"""What parts need of one another, found from their cells, without a look at single elements.

It is what `hpcpipe.planner.layout` finds element by element, but for two things, which a search can
bear: a cell that is in several chunks is taken to wait, and to be waited for, as a whole; and
elements are paired only where their layers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcpipe.jobs import Capabilities
from hpcpipe.planner.element_graph import Elements
from hpcpipe.planner.layout import Link, arrange, make_jobs
from hpcpipe.planner.search.cell_index import Chunk
from hpcpipe.planner.simulate import Job

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


def estimate(
    graph: Elements,
    chunks: Sequence[Chunk],
    weights: Sequence[float],
    pairs: Pairs,
    can: Capabilities,
) -> list[Job]:
    """Return chunks as arrays in the order to submit them, as the simulator takes them."""
    homes: dict[int, list[int]] = {}  # by cell: the chunks it is in
    for number, chunk in enumerate(chunks):
        for cell in chunk.cells:
            homes.setdefault(cell, []).append(number)
    links = [_links(chunk, chunks, homes, pairs) for chunk in chunks]
    elements = [one.elements for one in chunks]
    return make_jobs(graph, arrange(elements, weights, links, can), graph.seconds)


def _links(
    chunk: Chunk, chunks: Sequence[Chunk], homes: Mapping[int, Sequence[int]], pairs: Pairs
) -> dict[int, Link]:
    needs: dict[int, int] = {}
    lone: dict[int, int | None] = {}
    for cell, count in chunk.above.items():
        for number in homes[cell]:
            # Of two cells in one chunk, no single element is needed.
            known = number not in needs and len(homes[cell]) == 1
            lone[number] = chunk.lone.get(cell) if known else None
            needs[number] = needs.get(number, 0) + count
    links = {}
    for number, count in needs.items():
        paired = 1 < len(chunk.elements) == count
        layers = chunk.layer, chunks[number].layer
        links[number] = Link(count, pairs.get(layers) if paired else None, lone[number])
    return links
