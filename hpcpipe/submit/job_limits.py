"""Job limits: where each class of resources goes, and how many tasks have to share an element.

A *class* is what tasks ask for. It is routed once, before anything is planned, and so the planner
knows how many of its tasks go side by side in an element, and how many have to be in one, for the
queue to take all elements.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from hpcpipe.errors import ConfigError
from hpcpipe.keys.fates import RUN
from hpcpipe.keys.plan import Plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.resources import Resources
from hpcpipe.site import Queue, Site
from hpcpipe.site.route import Route, route

_TINY = 100  # elements in an array, below which elements may have to hold several tasks

Routes = Mapping[Resources, Route]
Classes = Mapping[Resources, Sequence[int]]  # how many tasks have to run, node by node


def route_classes(plan: Plan, site: Site) -> Routes:
    """Route every class of resources of which tasks have to run.

    Raises ConfigError, naming the node, where the site has no place for one.
    """
    routes: dict[Resources, Route] = {}
    for node in plan.nodes.values():
        for asked in count_classes(plan, node.node.name):
            try:
                routes[asked] = routes.get(asked) or route(asked, site)
            except ConfigError as error:
                raise ConfigError(f"{node.node.name}: {error}") from error
    return routes


def route_batch(batch: Batch, routes: Routes, site: Site) -> Route:
    """Return its class's route; a batch whose elements hold several tasks asks for more."""
    if batch.longest == 1:
        return routes[batch.resources]
    try:
        return route(batch.resources.times(1, batch.turns), site, batch.lanes)
    except ConfigError as error:
        shared = f" ({batch.longest} of its tasks share a job)"
        raise ConfigError(f"{batch.name}{shared}: {error}") from error


def make_limits(
    plan: Plan,
    routes: Routes,
    site: Site,
    *,
    arrays: bool,
    calls: int | None = None,
    times: int = 1,
) -> Limits:
    """Return what the planner has to know of a site.

    ``arrays`` is whether its scheduler has any; ``calls`` are those that the user allows. What is
    submitted in windows may be so many ``times`` more elements than the site takes at a time.
    """
    of = site.limits
    classes: dict[Resources, list[int]] = {}
    for name in plan.nodes:
        for asked, count in count_classes(plan, name).items():
            classes.setdefault(asked, []).append(count)
    lanes = {asked: routes[asked].room for asked in classes}
    size = of.array_size if arrays and of.array_size else 1
    limited = job_bounds(site) if of.elements_count else ()
    bounds = [(most * times, queue) for _, most, queue in limited]
    if size < _TINY:  # elsewhere calls only make dependencies relaxed
        bounds.append((size * (calls or of.calls), None))
    least = dict.fromkeys(classes, 1)
    for most, queue in bounds:
        mine = {asked: n for asked, n in classes.items() if queue in (None, routes[asked].queue)}
        needed = _least(mine, most, lanes, of.shortest_job)
        least |= {asked: max(least[asked], needed) for asked in mine}
    packs = {
        asked: pack_of(asked, lanes[asked], least[asked], of.shortest_job) for asked in classes
    }
    most = calls or of.calls
    if not of.elements_count and of.max_jobs and of.overflow == "refused":
        most = min(most, of.max_jobs)
    untimed = site.defaults.time is None
    return Limits(of.array_size, most, packs, lanes, of.cores, calls, untimed=untimed)


def pack_of(asked: Resources, lanes: int, least: int = 1, shortest: int | None = None) -> int:
    """Return how many strands of tasks should share an element: what is asked, or one in each lane.

    If that is too few, for ``least`` or for an element to take the ``shortest`` seconds, it is as
    many more in each lane.
    """
    wished = asked.pack or lanes
    turns = ceil(shortest / asked.time) if shortest and asked.time else 1
    least = max(least, (turns - 1) * lanes + 1)
    return wished if wished >= least else ceil(least / lanes) * lanes


def check_jobs(routed: Sequence[tuple[Batch, Route]], site: Site) -> None:
    """Raise ConfigError where batches make more jobs than the site takes at a time."""
    for where, most, queue in job_bounds(site):
        batches = [batch for batch, route in routed if queue in (None, route.queue)]
        jobs = sum(batch.elements if site.limits.elements_count else 1 for batch in batches)
        if jobs > most:
            raise ConfigError(
                f"{where} takes {most} job{'s' * (most > 1)} at a time, and this makes {jobs}, "
                "however many tasks share one; submit less of it at a time"
            )


def job_bounds(site: Site) -> Iterator[tuple[str, int, Queue | None]]:
    """Walk the limits on jobs: whose it is, how many it takes, and the queue; None: all."""
    if site.limits.overflow == "held":
        return
    for queue in site.queues:
        if queue.max_jobs is not None:
            yield f"queue {queue.name!r} of site {site.name!r}", queue.max_jobs, queue
    if site.limits.max_jobs is not None:
        yield f"site {site.name!r}", site.limits.max_jobs, None


def _least(
    classes: Classes, most: int, lanes: Mapping[Resources, int], shortest: int | None
) -> int:
    """Return how many tasks have to share an element for there to be at most ``most`` of them."""

    def fits(least: int) -> bool:
        packs = {asked: pack_of(asked, lanes[asked], least, shortest) for asked in classes}
        elements = (ceil(n / packs[asked]) for asked, counts in classes.items() for n in counts)
        return sum(elements) <= most

    largest = max([max(counts) for counts in classes.values()], default=1)
    return min(largest, 1 + bisect_left(range(1, largest + 1), True, key=fits))


def count_classes(plan: Plan, name: str) -> Mapping[Resources, int]:
    """Count a node's tasks to run by class."""
    node = plan.nodes[name]
    if node.raised:
        return Counter(plan.asked(node, task) for task in node.to_run)
    count = node.fates.count(RUN)
    return {plan.asked(node): count} if count else {}
