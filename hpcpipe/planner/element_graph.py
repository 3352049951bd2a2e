"""The graph of what is to run, element by element, as the planner sees it.

An element is a *strand*, that is, a task or a chain of tasks of which each needs only the one
before; or it is a pack of strands, which run one after the other, or side by side in *lanes*.
Everything is in columns, by element number; numbers ascend from node to node, upstream ones first.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcpipe.keys.fates import IN_FLIGHT, RUN
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.planner.batch import InFlightJob, span
from hpcpipe.resources import Resources

# What elements of one batch must share: resources, whether sh or Python runs them, and how many
# tasks are in a strand, where that matters: where strands run side by side.
Place = tuple[Resources, bool, int]


@dataclass(frozen=True, eq=False)
class Elements:
    """Columns by element: its tasks, place, lanes, seconds, parents; and what follows from those.

    ``tasks`` are pairs of a node's number and a flat index in it. ``kinds`` tell elements of
    different nodes apart. ``cpus`` are those of all lanes that there could be, as an element that
    can have several has a machine to itself. ``in_flight`` are jobs of earlier submissions to wait
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
    in_flight: Mapping[int, frozenset[tuple[InFlightJob, int]]]
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
    in_flight: Mapping[int, set[tuple[InFlightJob, int]]]


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
    in_flight: dict[int, set[tuple[InFlightJob, int]]] = {}
    number_of: dict[str, Sequence[int]] = {}
    for number, node in enumerate(nodes):
        numbers = array("q", [-1]) * len(node.fates)
        number_of[node.node.name] = numbers
        column = seconds.get(node.node.name)
        shared = (plan.asked(node), node.node.sh, 1)
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
                        in_flight.setdefault(element, set()).add((InFlightJob(place.job), at))
    return Singles(nodes, tasks, places, times, [sorted({*a}) for a in parents], in_flight)


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
    packs = _packs(singles, strands, pack) if pack else [[strand] for strand in strands]
    return _columns(singles, packs, lanes)


def _chains(singles: Singles) -> Iterator[list[int]]:
    """Join tasks of which each is the only one to need the one before, and needs no other."""
    parents, places, in_flight = singles.parents, singles.places, singles.in_flight
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
            alike = places[below] == places[task] and below not in in_flight
            if len(parents[below]) != 1 or not alike:
                break
            chain.append(below)
            joined[below] = True
        yield chain


def _packs(
    singles: Singles, strands: Sequence[list[int]], pack: Callable[[Resources], int]
) -> list[list[list[int]]]:
    """Join neighbours of a node, or of a chain of nodes, as many as ``pack`` says."""
    packs: list[list[list[int]]] = []
    latest: dict[object, list[list[int]]] = {}  # by place and nodes: what is not full yet
    for strand in strands:
        place = singles.places[strand[0]]
        kind = (place, *(singles.tasks[task][0] for task in strand))
        if kind not in latest or len(latest[kind]) >= pack(place[0]):
            latest[kind] = []
            packs.append(latest[kind])
        latest[kind].append(strand)
    return packs


def _columns(
    singles: Singles, packs: Sequence[Sequence[Sequence[int]]], most: Callable[[Resources], int]
) -> Elements:
    groups = [[task for strand in pack for task in strand] for pack in packs]
    places = [singles.places[group[0]] for group in groups]
    lanes = [min(most(place[0]), len(pack)) for place, pack in zip(places, packs, strict=True)]
    parents, children, in_flight = _relations(singles, groups)
    order = _topological(parents, children)
    seconds = [
        span([sum([singles.seconds[task] for task in strand]) for strand in pack], side_by_side)
        for pack, side_by_side in zip(packs, lanes, strict=True)
    ]
    depth = [0] * len(groups)
    below = [0.0] * len(groups)
    for element in order:
        depth[element] = max((depth[parent] + 1 for parent in parents[element]), default=0)
    for element in reversed(order):
        longest = max((below[child] for child in children[element]), default=0.0)
        below[element] = seconds[element] + longest
    return Elements(
        singles.nodes,
        [[singles.tasks[task] for task in group] for group in groups],
        [
            (asked, static, len(pack[0]) if most(asked) > 1 else 1)
            for (asked, static, _), pack in zip(places, packs, strict=True)
        ],
        [tuple(dict.fromkeys(singles.tasks[task][0] for task in group)) for group in groups],
        lanes,
        [asked.times(most(asked), 1).cpus or 1 for asked, *_ in places],
        seconds,
        parents,
        children,
        in_flight,
        order,
        depth,
        below,
    )


def _relations(
    singles: Singles, groups: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[list[int]], dict[int, frozenset[tuple[InFlightJob, int]]]]:
    """Find the parents and children of groups of tasks, and the jobs in flight that they need."""
    of = array("q", bytes(8 * len(singles.tasks)))
    for element, group in enumerate(groups):
        for task in group:
            of[task] = element
    parents: list[list[int]] = []
    children: list[list[int]] = [[] for _ in groups]
    in_flight: dict[int, frozenset[tuple[InFlightJob, int]]] = {}
    for element, group in enumerate(groups):
        above = {of[parent] for task in group for parent in singles.parents[task]} - {element}
        parents.append(sorted(above))
        for parent in parents[-1]:
            children[parent].append(element)
        if singles.in_flight:
            found = {one for task in group for one in singles.in_flight.get(task, ())}
            if found:
                in_flight[element] = frozenset(found)
    return parents, children, in_flight


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
