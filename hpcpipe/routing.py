"""Routing: which queue a task's resources go to, and a sentence that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf

from hpcpipe.errors import ConfigError, near
from hpcpipe.model import Resources, format_memory, format_time
from hpcpipe.site import Queue, Site

_SAY: dict[str, Callable[[int], str]] = {
    "time": format_time,
    "memory": format_memory,
    "cpus": str,
    "gpus": str,
}
_EXACT = {"time": "{} s", "memory": "{} MB", "cpus": "{}", "gpus": "{}"}


@dataclass(frozen=True)
class Route:
    """Where a task goes: the queue, its resources with the site's defaults, and why.

    Without a queue the scheduler's own choice holds. A queue asked for on a site that lists none
    is passed on, known by nothing but its name.
    """

    queue: Queue | None
    resources: Resources
    why: str


def route(asked: Resources, site: Site) -> Route:
    """Choose the queue for what one task asks.

    A queue asked for must exist and fit. Otherwise it is the first that fits, in the order of the
    site file, after ``defaults.queue`` and the default queue. Raises ConfigError where none does,
    naming the nearest and what it lacks.
    """
    wanted = asked.over(site.defaults.resources())
    if not site.queues:
        return _unlisted(wanted, site)
    ranked = sorted(site.queues, key=lambda queue: (queue.name != wanted.queue, not queue.default))
    fitting = [queue for queue in ranked if not _lacks(wanted, queue)]
    if asked.queue is not None:
        return _asked(asked.queue, wanted, site, fitting)
    if not fitting:
        nearest = min(ranked, key=lambda queue: _distance(wanted, queue))
        raise ConfigError(
            f"no queue of site {site.name!r} takes {wanted}; "
            f"nearest is {nearest.name!r}: {', '.join(_lacks(wanted, nearest))}"
        )
    chosen = fitting[0]
    passed = [
        f"not {queue.name}: {', '.join(_lacks(wanted, queue))}"
        for queue in ranked[: ranked.index(chosen)]
    ]
    return _to(chosen, wanted, "; ".join([_fits(wanted, chosen), *passed]))


def _unlisted(wanted: Resources, site: Site) -> Route:
    if wanted.queue is None:
        return Route(None, wanted, f"site {site.name!r} lists no queues, so none is named")
    why = f"{wanted.queue}: taken at its word, since site {site.name!r} lists no queues"
    return Route(Queue(name=wanted.queue), wanted, why)


def _asked(name: str, wanted: Resources, site: Site, fitting: list[Queue]) -> Route:
    queues = {queue.name: queue for queue in site.queues}
    if name not in queues:
        raise ConfigError(f"site {site.name!r} has no queue {name!r}{near(name, queues)}")
    queue = queues[name]
    if lacks := _lacks(wanted, queue):
        instead = f"; {fitting[0].name!r} would" if fitting else ""
        raise ConfigError(
            f"queue {name!r} of site {site.name!r} does not take {wanted}: "
            f"{', '.join(lacks)}{instead}"
        )
    return _to(queue, wanted, f"{_fits(wanted, queue)}; asked for")


def _to(queue: Queue, wanted: Resources, why: str) -> Route:
    return Route(queue, replace(wanted, queue=queue.name), f"{queue.name}: {why}")


def _limited(wanted: Resources, queue: Queue) -> Iterator[tuple[str, int, int]]:
    """Walk what is both asked for and limited: its name, how much is asked, and the limit."""
    for name in _SAY:
        asked, limit = getattr(wanted, name), getattr(queue, f"max_{name}")
        if asked is not None and limit is not None:
            yield name, asked, limit


def _lacks(wanted: Resources, queue: Queue) -> list[str]:
    """Say each thing of which more is wanted than the queue gives: ``time 2 d > 4 h``."""
    words = []
    for name, asked, limit in _limited(wanted, queue):
        if asked > limit:
            more, less = _SAY[name](asked), _SAY[name](limit)
            if more == less:  # rounded for a person they may look alike
                more, less = _EXACT[name].format(asked), _EXACT[name].format(limit)
            words.append(f"{name} {more} > {less}")
    return words


def _distance(wanted: Resources, queue: Queue) -> tuple[int, float]:
    """Measure how far a queue is from fitting: first in how many ways, then by how much."""
    excess = [
        asked / limit if limit else inf
        for _, asked, limit in _limited(wanted, queue)
        if asked > limit
    ]
    return len(excess), sum(excess)


def _fits(wanted: Resources, queue: Queue) -> str:
    """Say how what is wanted fits: ``2 h fits its 4 h limit, 8 of its 10 cpus``."""
    words = []
    for name, asked, limit in _limited(wanted, queue):
        if name in ("time", "memory"):
            words.append(f"{_SAY[name](asked)} fits its {_SAY[name](limit)} limit")
        elif (name, asked) not in (("cpus", 1), ("gpus", 0)):
            words.append(f"{asked} of its {limit} {name}")
    return ", ".join(words) or f"takes {wanted}"
