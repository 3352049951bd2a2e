"""Windows: of more tasks than a site takes at a time, those that are submitted now.

The rest is submitted by the continuation, as soon as there is room for it. A window has whole
chains of tasks rather than one node after another, so that subjects are finished one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from hpcpipe.errors import ConfigError
from hpcpipe.keys.fates import LATER, RUN
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.planner.batch import Limits
from hpcpipe.resources import Resources
from hpcpipe.site import Site
from hpcpipe.site.route import route
from hpcpipe.submit.job_limits import Routes, count_classes, job_bounds

_RESERVED = 4  # jobs that are left for continuations
_LEAST = 16  # jobs that a site must take for windows
_SMALLEST = 4  # part of what a site takes, below which more is awaited while something runs
_PACKED = 4  # tasks to an element that are no reason for windows: all is submitted at once
_ROUNDS = 12  # windows that are aimed at: the last elements keep few of the cores idle
Room = Mapping[str | None, int]  # elements that may be submitted, by the queue's name; None: in all


@dataclass(frozen=True)
class Window:
    """A plan of which what there is no room for is left for later, with its limits.

    ``count`` is how many windows are to come, this one included.
    """

    plan: Plan
    limits: Limits
    count: int = 1


def open_window(
    plan: Plan,
    limits: Limits,
    routes: Routes,
    site: Site,
    count_live: Callable[[], Mapping[str | None, int]],
    make: Callable[[int], Limits],
) -> Window:
    """Decide whether all tasks are submitted at once, or what the first window has.

    ``count_live`` counts the elements in the queue, as in `Room`; ``make`` gives limits by which
    there are so many times as many elements as the site takes at a time.
    """
    most = {queue.name if queue else None: most for _, most, queue in job_bounds(site)}
    if not most or not site.limits.elements_count or site.nodes.may_submit is False:
        return Window(plan, limits)
    live = count_live()
    room = {name: n - _RESERVED - live.get(name, 0) for name, n in most.items()}
    packed = any(
        pack > _PACKED * (asked.pack or limits.lanes_of(asked))
        for asked, pack in limits.packs.items()
    )
    fits = count_windows(plan, limits, routes, room) <= 1
    if min(most.values()) < _LEAST or (fits and not packed):
        return Window(plan, limits)
    limits = _routable(make(_ROUNDS), site)
    count = count_windows(plan, limits, routes, room)
    if any(live.get(name, 0) and room[name] * _SMALLEST < n for name, n in most.items()):
        room = dict.fromkeys(room, 0)
    return Window(cut(plan, limits, routes, room), limits, count)


def _routable(limits: Limits, site: Site) -> Limits:
    """Shrink packs whose total time exceeds the limit of every queue."""
    packs = {}
    for asked, pack in limits.packs.items():
        lanes = limits.lanes_of(asked)
        while pack > lanes and not _takes(site, asked, ceil(pack / lanes), lanes):
            pack = max(lanes, pack // 2)
        packs[asked] = pack
    return replace(limits, packs=packs)


def _takes(site: Site, asked: Resources, turns: int, lanes: int) -> bool:
    try:
        route(asked.times(1, turns), site, lanes)
    except ConfigError:
        return False
    return True


def cut(plan: Plan, limits: Limits, routes: Routes, room: Room) -> Plan:
    """Leave for later what there is no room for."""
    budget = _Budget(limits, routes, room)
    chosen: dict[str, set[int]] = {name: set() for name in plan.nodes}
    for name, task in _in_order(plan):
        if not budget.take(plan.asked(plan.nodes[name], task)):
            break
        chosen[name].add(task)
    return replace(plan, nodes={n: _only(node, chosen[n]) for n, node in plan.nodes.items()})


class _Budget:
    """Counts the elements that tasks will take."""

    def __init__(self, limits: Limits, routes: Routes, room: Room) -> None:
        self._limits, self._routes, self._room = limits, routes, room
        self._tasks: dict[Resources, int] = {}
        self._elements: dict[str | None, int] = {}

    def take(self, asked: Resources) -> bool:
        """Count one task more, unless there is no room for it."""
        before = self._tasks.get(asked, 0)
        pack = self._limits.pack_of(asked)
        if before % pack == 0:
            bounds = _bounding(asked, self._routes, self._room)
            if any(self._elements.get(one, 0) >= self._room[one] for one in bounds):
                return False
            for one in bounds:
                self._elements[one] = self._elements.get(one, 0) + 1
        self._tasks[asked] = before + 1
        return True


def _in_order(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield every task to run, once, each after all that it waits for, chain by chain."""
    seen: dict[str, bytearray] = {name: bytearray(len(n.fates)) for name, n in plan.nodes.items()}
    for name in reversed([*plan.nodes]):
        for task in plan.nodes[name].to_run:
            yield from _with_ancestors(plan, name, task, seen)


def _with_ancestors(
    plan: Plan, name: str, task: int, seen: Mapping[str, bytearray]
) -> Iterator[tuple[str, int]]:
    stack = [(name, task, _parents(plan, name, task))]
    if seen[name][task]:
        return
    seen[name][task] = 1
    while stack:
        name, task, left = stack[-1]
        for above, parent in left:
            if plan.nodes[above].fates[parent] == RUN and not seen[above][parent]:
                seen[above][parent] = 1
                stack.append((above, parent, _parents(plan, above, parent)))
                break
        else:
            stack.pop()
            yield name, task


def _parents(plan: Plan, name: str, task: int) -> Iterator[tuple[str, int]]:
    for edge in plan.nodes[name].edges:
        for parent in edge.parents(task):
            yield edge.upstream, parent


def _only(node: NodePlan, chosen: Iterable[int]) -> NodePlan:
    """Leave for later all tasks of a node that would run but those chosen."""
    kept = {*chosen}
    fates = bytes(
        LATER if fate == RUN and task not in kept else fate for task, fate in enumerate(node.fates)
    )
    return replace(node, fates=fates)


def count_windows(plan: Plan, limits: Limits, routes: Routes, room: Room) -> int:
    """Estimate how many windows all tasks take that have to run."""
    elements: dict[str | None, int] = {}
    classes: Counter[Resources] = Counter()
    for name in plan.nodes:
        classes.update(count_classes(plan, name))
    for asked, count in classes.items():
        for one in _bounding(asked, routes, room):
            elements[one] = elements.get(one, 0) + ceil(count / limits.pack_of(asked))
    return max(ceil(elements.get(one, 0) / max(1, room[one])) for one in room)


def _bounding(asked: Resources, routes: Routes, room: Room) -> set[str | None]:
    """Return the limits that apply to a class of tasks: its queue's, and the site's."""
    queue = routes[asked].queue
    return {queue.name if queue else None, None} & room.keys()
