"""Cancelling: a whole run, or some tasks, by the scheduler's own command."""

from __future__ import annotations

from typing import NamedTuple

from hpcpipe.ledger import Ledger
from hpcpipe.record import accepted, read_record
from hpcpipe.rundir import Listing, RunDir
from hpcpipe.schedulers import make_scheduler
from hpcpipe.status import make_report


class Cancelled(NamedTuple):
    """How many tasks were cancelled, and which of them only because they shared an element."""

    tasks: int
    along: tuple[str, ...] = ()


def cancel(rundir: RunDir, names: tuple[str, ...] = ()) -> Cancelled:
    """Cancel all that is queued or running, or the tasks of the given names.

    Without names also what earlier submissions left in the queue. Raises UsageError for a name that
    no task has, SchedulerError where the scheduler refuses.
    """
    with rundir.lock():
        done = _tasks(rundir, names) if names else _everything(rundir)
        rundir.asked.unlink(missing_ok=True)
    return done


def _everything(rundir: RunDir) -> Cancelled:
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    record = read_record(rundir, history.last["run"])
    scheduler = make_scheduler(record.scheduler, record.options)
    open_ = {one.job: batch for batch, one in accepted(rundir, history) if one.job}
    live = scheduler.poll(open_)
    listings = rundir.list_all({node for batch in open_.values() for node in batch.nodes})
    jobs: list[str] = []
    count = 0
    for job, batch in open_.items():
        tasks = [one for one in batch.tasks() if scheduler.element(job, one[2]) in live]
        if tasks:
            jobs.append(job)
        if batch.starts is not None:  # an element that runs has ended some of its tasks
            tasks = [one for one in tasks if not _ended(listings[one[0]], one[1], batch.id)]
        count += len(tasks)
    scheduler.cancel(jobs)
    if jobs:
        ledger.cancelled([open_[job].id for job in jobs], "by hpcpipe cancel")
    return Cancelled(count)


def _ended(listing: Listing, key: str, batch: str) -> bool:
    return key in listing.good or batch in listing.errors.get(key, ())


def _tasks(rundir: RunDir, names: tuple[str, ...]) -> Cancelled:
    report = make_report(rundir, fresh=True)
    wanted: set[tuple[str, str]] = set()
    for name in names:
        found = report.record.find(name) or [report.record.one(name)]
        wanted |= {(node.name, node.key(index)) for node, index in found}
    live = [(task, task.place) for task in report.tasks if task.state.live and task.place]
    dropped: dict[str, dict[str, None]] = {}  # elements by batch, each once
    for task, place in live:
        if (task.node, task.key) in wanted:
            dropped.setdefault(place.batch.id, {})[place.element] = None
    elements = {element: None for some in dropped.values() for element in some}
    make_scheduler(report.record.scheduler, report.record.options).cancel([*elements])
    # Noted here, as some schedulers forget at once what is cancelled before it began.
    for batch, some in dropped.items():
        Ledger(rundir.ledger).dropped(batch, [*some])
    gone = [task for task, place in live if place.element in elements]
    along = tuple(task.name for task in gone if (task.node, task.key) not in wanted)
    return Cancelled(len(gone), along)
