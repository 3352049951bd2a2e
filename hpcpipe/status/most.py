"""What a task ran out of although it had the most that its site gives: a retry cannot help it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hpcpipe.errors import ConfigError
from hpcpipe.site import Site
from hpcpipe.site.load import load_site
from hpcpipe.site.route import route
from hpcpipe.status.state import Task
from hpcpipe.store.record import RunRecord


class Most(NamedTuple):
    """A task, and the memory or time that it had: no queue gives it more."""

    task: Task
    what: str
    had: int


def find_most(record: RunRecord, tasks: Sequence[Task]) -> Most | None:
    """Find a task that ran out of the most that its site gives; None also without a site file."""
    short = [task for task in tasks if task.place and task.reason and task.reason.about.raises]
    try:
        site = load_site(record.site).site if short else Site()
    except (ConfigError, OSError):
        return None
    found = (_of(task, record, site) for task in short)
    return next(filter(None, found), None)


def _of(task: Task, record: RunRecord, site: Site) -> Most | None:
    assert task.place is not None
    assert task.reason is not None
    what = task.reason.about.raises
    had = getattr(task.place.batch.per_task, what)
    if not had or task.node not in record.nodes:
        return None
    asked = record.resources.over(record.nodes[task.node].resources)
    try:
        route(asked._replace(**{what: had + 1}), site)
    except ConfigError:
        return Most(task, what, had)
    return None
