"""The graph of what is to run, element by element, as the planner sees it.

An element is a *strand*, that is, a task or a chain of tasks of which each needs only the one
before; or it is a pack of strands, which run one after the other, or side by side in *lanes*.
Everything is in columns, by element number; numbers ascend from node to node, upstream ones first.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcpipe.model import Resources
from hpcpipe.plan import IN_FLIGHT, RUN, NodePlan, Plan, is_static
from hpcpipe.planner.batch import Standing, span

# What elements of one batch must share: resources, whether sh or Python runs them, and how many
# tasks are in a strand, where that matters: where strands run side by side.
Place = tuple[Resources, bool, int]


@dataclass(frozen=True, eq=False)
class Elements:
    """Columns by element: its tasks, place, lanes, seconds, parents; and what follows from those.

    ``tasks`` are pairs of a node's number and a flat index in it. ``kinds`` tell elements of
    different nodes apart. ``cpus`` are those of all lanes that there could be, as an element that
    can have several has a machine to itself. ``standing`` are jobs of earlier submissions to wait
    for, with the array index, for the few elements that have any. ``depth`` counts the elements
    before it on the longest way; ``below`` is the seconds from its start to the end of the longest
    way down.
    """

    nodes: tuple[NodePlan, ...]
    tasks: Sequence[Sequence[tuple[int, int]]]
    places: Sequence[Place]
    kinds: Sequence[tuple[int, ...]]
    lanes: Sequence[int]
    cpus: Sequence[int]
    seconds: Sequence[float]
    parents: Sequence[Sequence[int]]
    children: Sequence[Sequence[int]]
    standing: Mapping[int, frozenset[tuple[Standing, int]]]
    order: Sequence[int]
    depth: Sequence[int]
    below: Sequence[float]

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, eq=False)
class Singles:
    """Columns by task, before any are joined; as those of `Elements`."""

    nodes: tuple[NodePlan, ...]
    tasks: Sequence[tuple[int, int]]
    places: Sequence[Place]
    seconds: Sequence[float]
    parents: Sequence[Sequence[int]]
    standing: Mapping[int, set[tuple[Standing, int]]]


def make_elements(plan: Plan, seconds: Mapping[str, Sequence[float]]) -> Elements:
    """Form the elements of a plan, a task each; see `read_tasks`."""
    return join(read_tasks(plan, seconds))


def read_tasks(plan: Plan, seconds: Mapping[str, Sequence[float]]) -> Singles:
    """Read what is to run; ``seconds`` are run times by node, as far as known.

    A task of unknown run time counts as long as the mean of the known ones.
    """
    nodes = tuple(plan.nodes.values())
    known = [one for column in seconds.values() for one in column]
    usual = sum(known) / len(known) if known else 1.0
    tasks: list[tuple[int, int]] = []
    places: list[Place] = []
    times: list[float] = []
    parents: list[list[int]] = []
    standing: dict[int, set[tuple[Standing, int]]] = {}
    number_of: dict[str, Sequence[int]] = {}
    for number, node in enumerate(nodes):
        numbers = array("q", [-1]) * len(node.fates)
        number_of[node.node.name] = numbers
        column = seconds.get(node.node.name)
        shared = (plan.asked(node), is_static(node.node), 1)
        first = len(tasks)
        for element, index in enumerate(node.to_run, first):
            numbers[index] = element
            tasks.append((number, index))
            places.append((plan.asked(node, index), *shared[1:]) if node.raised else shared)
            times.append(column[index] if column is not None else usual)
            parents.append([])
        for edge in node.edges:
            upstream, theirs = plan.nodes[edge.upstream], number_of[edge.upstream]
            for index, needed in edge.needs():
                if (element := numbers[index]) < 0:  # it does not run
                    continue
                for parent in needed:
                    if upstream.fates[parent] == RUN:
                        parents[element].append(theirs[parent])
                    elif upstream.fates[parent] == IN_FLIGHT:
                        place = upstream.in_flight[parent]
                        at = -1 if place.index is None else place.index
                        standing.setdefault(element, set()).add((Standing(place.job), at))
        for element in range(first, len(tasks)):
            parents[element] = sorted(set(parents[element]))
    return Singles(nodes, tasks, places, times, parents, standing)


def join(
    singles: Singles,
    *,
    fuse: bool = False,
    pack: Callable[[Resources], int] | None = None,
    lanes: Callable[[Resources], int] = lambda _: 1,
) -> Elements:
    """Form elements of tasks.

    ``fuse`` joins chains of tasks with equal resources; ``pack`` says of what tasks ask for how
    many neighbours of a node are joined, and ``lanes`` how many of these run side by side.
    """
    strands = list(_chains(singles)) if fuse else [[task] for task in range(len(singles.tasks))]
    packs = list(_packs(singles, strands, pack)) if pack else [[strand] for strand in strands]
    return _columns(singles, packs, lanes)


def _chains(singles: Singles) -> Iterator[list[int]]:
    """Join tasks of which each is the only one to need the one before, and needs no other."""
    parents, places, standing = singles.parents, singles.places, singles.standing
    only: list[int] = [-1] * len(parents)  # the one task that needs it; -2: several do
    for task, above in enumerate(parents):
        for parent in above:
            only[parent] = task if only[parent] == -1 else -2
    joined = bytearray(len(parents))
    for task in range(len(parents)):
        if joined[task]:
            continue
        chain = [task]
        while (below := only[chain[-1]]) >= 0:
            alike = places[below] == places[task] and below not in standing
            if len(parents[below]) != 1 or not alike:
                break
            chain.append(below)
            joined[below] = True
        yield chain


def _packs(
    singles: Singles, strands: Sequence[list[int]], pack: Callable[[Resources], int]
) -> Iterator[list[list[int]]]:
    """Join neighbours of a node, or of a chain of nodes, so many as ``pack`` says."""
    tasks, places = singles.tasks, singles.places
    joined: list[list[int]] = []
    kind: object = None
    for strand in strands:
        place = places[strand[0]]
        alike = (place, [tasks[task][0] for task in strand])
        if joined and (alike != kind or len(joined) >= pack(place[0])):
            yield joined
            joined = []
        kind = alike
        joined.append(strand)
    if joined:
        yield joined


def _columns(
    singles: Singles, packs: Sequence[Sequence[Sequence[int]]], most: Callable[[Resources], int]
) -> Elements:
    tasks, times = singles.tasks, singles.seconds
    parents, standing = singles.parents, singles.standing
    groups = [[task for strand in pack for task in strand] for pack in packs]
    places = [singles.places[group[0]] for group in groups]
    lanes = [min(most(place[0]), len(pack)) for place, pack in zip(places, packs, strict=True)]
    count = len(groups)
    of = array("q", bytes(8 * len(tasks)))
    for element, group in enumerate(groups):
        for task in group:
            of[task] = element
    above: list[list[int]] = []
    children: list[list[int]] = [[] for _ in range(count)]
    waits: dict[int, frozenset[tuple[Standing, int]]] = {}
    for element, group in enumerate(groups):
        mine = sorted({of[parent] for task in group for parent in parents[task]} - {element})
        above.append(mine)
        for parent in mine:
            children[parent].append(element)
        if standing and (found := {one for task in group for one in standing.get(task, ())}):
            waits[element] = frozenset(found)
    order = _topological(above, children)
    seconds = [
        span([sum([times[task] for task in strand]) for strand in pack], side_by_side)
        for pack, side_by_side in zip(packs, lanes, strict=True)
    ]
    depth = [0] * count
    below = [0.0] * count
    for element in order:
        depth[element] = max((depth[parent] + 1 for parent in above[element]), default=0)
    for element in reversed(order):
        longest = max((below[child] for child in children[element]), default=0.0)
        below[element] = seconds[element] + longest
    return Elements(
        singles.nodes,
        [[tasks[task] for task in group] for group in groups],
        [
            (asked, static, len(pack[0]) if most(asked) > 1 else 1)
            for (asked, static, _), pack in zip(places, packs, strict=True)
        ],
        [tuple(dict.fromkeys(tasks[task][0] for task in group)) for group in groups],
        lanes,
        [asked.times(most(asked), 1).cpus or 1 for asked, *_ in places],
        seconds,
        above,
        children,
        waits,
        order,
        depth,
        below,
    )


def _topological(parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]) -> list[int]:
    """Order elements so that each comes after all it needs."""
    missing = [len(above) for above in parents]
    order = [element for element, count in enumerate(missing) if not count]
    for element in order:  # which grows as it is read
        for child in children[element]:
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    return order
