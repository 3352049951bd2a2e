"""Retrying: the same workflow planned again, with more of what a task ran out of."""

from __future__ import annotations

from collections.abc import Mapping

from hpcpipe.errors import ConfigError
from hpcpipe.model import Reason, Resources
from hpcpipe.routing import route
from hpcpipe.rundir import RunDir
from hpcpipe.site import Site
from hpcpipe.status import Task, make_report

_MORE = 2  # times as much of what ran out


def raised_resources(rundir: RunDir, site: Site) -> Mapping[str, Mapping[str, Resources]]:
    """Say, by node and key, what tasks should ask for that ran out of memory or time.

    Twice as much as last time, or as much as the site's queues allow. Tasks that failed for
    another reason keep what they were last raised to.
    """
    raised: dict[str, dict[str, Resources]] = {}
    for task in make_report(rundir, fresh=True).failures:
        if task.place is None:
            continue
        before = task.place.batch.per_task
        after = _raised(task, before, site)
        if after != before or task.place.attempt > 1:
            raised.setdefault(task.node, {})[task.key] = after
    return raised


def _raised(task: Task, asked: Resources, site: Site) -> Resources:
    if task.reason is Reason.MEMORY and asked.memory:
        steps = _steps(asked.memory, site, "max_memory")
        more = [asked._replace(memory=memory) for memory in steps]
    elif task.reason is Reason.TIME and asked.time:
        more = [asked._replace(time=time) for time in _steps(asked.time, site, "max_time")]
    else:
        return asked
    return next((one for one in more if _fits(one, site)), asked)


def _steps(asked: int, site: Site, limit: str) -> list[int]:
    """Twice as much, or else the most that any queue gives."""
    limits = [getattr(queue, limit) for queue in site.queues if getattr(queue, limit)]
    if limit == "max_time":
        limits += [step.max_time for queue in site.queues for step in queue.steps]
    return [asked * _MORE, *(most for most in sorted(limits, reverse=True) if most > asked)]


def _fits(asked: Resources, site: Site) -> bool:
    try:
        route(asked, site)
    except ConfigError:
        return False
    return True
