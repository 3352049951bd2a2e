"""What tasks need of memory and time, where they ran out of what they requested.

A need is remembered by node and label from run to run, as long as the workflow goes on requesting
what it did: editing a function is no reason to forget it, but a new ``memory=`` is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path
from typing import NamedTuple

from hpcpipe.errors import ConfigError
from hpcpipe.resources import Resources
from hpcpipe.site import Site
from hpcpipe.site.fit import pretty
from hpcpipe.site.route import route
from hpcpipe.status.in_flight import Standing
from hpcpipe.status.state import Task
from hpcpipe.store.plan import Frozen
from hpcpipe.store.recent import run_option
from hpcpipe.store.record import RunRecord

Needs = Mapping[str, Mapping[str, Mapping[str, tuple[int, int | None]]]]  # see `RunRecord.needs`

_MORE = 2  # times as much as what was not enough
_MARGIN = 1.25  # times as much as what was used, which a sample of it may fall short of
_UNKNOWN = {"memory": 1024, "time": 3600}  # what is doubled if nothing else is known: 1 GB, 1 h


class Found(NamedTuple):
    """The needs that are known, and what tasks had that ran out of it since the last run.

    ``had`` is by node, key and "memory" or "time".
    """

    known: Needs
    had: Mapping[tuple[str, str, str], int]


def find_needs(standing: Standing, site: Site) -> Found:
    """Add to the needs that the latest run knew what its tasks ran out of.

    Tasks of a node that had the same are given the same, so that they remain one array.
    """
    record = standing.record
    if record is None:
        return Found({}, {})
    short: dict[tuple[str, str, int], list[tuple[Task, int]]] = {}
    for task in (*standing.replaced, *standing.tasks.values()):
        if task.reason and task.place and (what := task.reason.about.raises):
            had, used = _had(task, what, site), _used(task, what)
            need = max(ceil(_more(record, task.node, what) * had), ceil(_MARGIN * used))
            short.setdefault((task.node, what, had), []).append((task, need))
    needs = {
        name: {label: {**one} for label, one in of.items()} for name, of in record.needs.items()
    }
    had_by_key = {}
    for (name, what, had), some in short.items():
        asked = (
            record.resources.over(record.nodes[name].resources) if name in record.nodes else None
        )
        fact = max(need for _, need in some), getattr(asked, what, None)
        for task, _ in some:
            needs.setdefault(name, {}).setdefault(task.label, {})[what] = fact
            had_by_key[name, task.key, what] = had
    return Found(needs, had_by_key)


def _more(record: RunRecord, node: str, what: str) -> float:
    """Return how many times as much as was not enough is requested."""
    own = record.nodes[node].resources if node in record.nodes else Resources()
    said = getattr(record.resources.over(own), f"on_{what}")
    return float(said[1:]) if said and said != "no" else _MORE


def _had(task: Task, what: str, site: Site) -> int:
    """Return what a task requested, was given by the site, or else what it used."""
    assert task.place is not None
    batch = task.place.batch
    limit = task.end.memory_limit if task.end and what == "memory" else None
    if what == "time":
        limit = next((one.default_time for one in site.queues if one.name == batch.queue), None)
    asked = getattr(batch.per_task, what)
    return asked or limit or ceil(_used(task, what)) or _UNKNOWN[what]


def _used(task: Task, what: str) -> float:
    """Return what was measured of one task: MiB or seconds.

    The accounting knows an element only, which may be of several tasks. Where these run in turn,
    its most memory is that of one of them.
    """
    batch = task.place and task.place.batch
    if what == "time":
        end = task.end if batch and batch.starts is None else None
        return max(task.outcome.get("wall") or 0, (end and end.wall) or 0)
    end = task.end if batch and batch.lanes == 1 else None
    return max((task.outcome.get("max_memory") or 0) / 1024, (end and end.max_memory) or 0)


def raise_requests(
    found: Found,
    plan: Frozen,
    kept: Resources | None,
    options: Resources | None,
    site: Site,
    stuck: set[tuple[str, str]] | None = None,
) -> dict[str, dict[str, Resources]]:
    """Return by node and key what tasks request that need more than their node asks.

    As much as they need, or as the site's queues allow. ``kept`` are the options of what is
    retried; what ``options`` say is left alone. Raises ConfigError where a task ran out of the most
    that the site allows; or adds it to those that are ``stuck``.
    """
    kept, options = kept or Resources(), options or Resources()

    @cache
    def most(request: Resources, memory: int | None, time: int | None) -> Resources:
        return _most(request, Resources(memory=memory, time=time), site)

    raised: dict[str, dict[str, Resources]] = {}
    for name in plan.nodes.keys() & found.known.keys():
        known, asked = found.known[name], kept.over(plan.nodes[name].resources)
        own = options.over(asked)
        for label, key in plan.nodes[name].by_label():
            needed = {
                what: need
                for what, (need, requested) in known.get(label, {}).items()
                if getattr(asked, what) == requested and getattr(options, what) is None
            }
            if not needed:
                continue
            one = most(own, needed.get("memory"), needed.get("time"))
            raised.setdefault(name, {})[key.hex()] = one
            for what, need in needed.items():
                had = found.had.get((name, key.hex(), what))
                if had is not None and (getattr(one, what) or 0) <= had:
                    if stuck is not None:
                        stuck.add((name, key.hex()))
                        continue
                    task = f"{name}/{label}" if label else name
                    raise _refusal(
                        task, what, had, Resources(**{**own._asdict(), what: need}), site, plan
                    )
    return raised


def _most(asked: Resources, needed: Resources, site: Site) -> Resources:
    """Return the most of what is needed, above what is asked, that some queue takes."""
    memories = [*_steps(asked.memory, needed.memory, site, "max_memory")]
    times = [*_steps(asked.time, needed.time, site, "max_time")]
    for memory, time in product(memories, times):
        one = asked._replace(memory=memory, time=time)
        try:
            route(one, site)
        except ConfigError:
            continue
        return one
    return asked


def _steps(asked: int | None, needed: int | None, site: Site, limit: str) -> Iterator[int | None]:
    """Yield what is needed, the limits of queues between that and what is asked, and the latter."""
    if needed and needed > (asked or 0):
        yield needed
        limits = [getattr(queue, limit) for queue in site.queues]
        if limit == "max_time":
            limits += [step.max_time for queue in site.queues for step in queue.steps]
        yield from sorted(
            {most for most in limits if most and (asked or 0) < most < needed}, reverse=True
        )
    yield asked


def _refusal(
    task: str, what: str, had: int, wanted: Resources, site: Site, plan: Frozen
) -> ConfigError:
    words = ""
    try:
        route(wanted, site)
    except ConfigError as error:
        words = f": {error}"
    return ConfigError(
        f"{task}: ran out of {what} with {pretty(what, had)}, and no queue gives it more{words}\n"
        f"Make the task need less, and repeat it with what it had: "
        f"hpcpipe retry --{what} {had}{'s' if what == 'time' else 'M'}{run_option(Path(plan.home))}"
    )
