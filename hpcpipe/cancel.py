"""Cancelling: a whole run, or some tasks, by the scheduler's own command."""

from __future__ import annotations

from hpcpipe.ledger import Ledger
from hpcpipe.record import accepted, read_record
from hpcpipe.rundir import RunDir
from hpcpipe.schedulers import make_scheduler
from hpcpipe.status import make_report


def cancel(rundir: RunDir, names: tuple[str, ...] = ()) -> int:
    """Cancel all that is queued or running, or the tasks of the given names; return how many.

    Without names also what earlier submissions left in the queue. Raises UsageError for a name that
    no task has, SchedulerError where the scheduler refuses.
    """
    with rundir.lock():
        count = _tasks(rundir, names) if names else _everything(rundir)
        rundir.asked.unlink(missing_ok=True)
    return count


def _everything(rundir: RunDir) -> int:
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    record = read_record(rundir, history.last["run"])
    scheduler = make_scheduler(record.scheduler, record.options)
    open_ = {one.job: batch for batch, one in accepted(rundir, history) if one.job}
    live = scheduler.poll(open_)
    jobs = [
        job
        for job, batch in open_.items()
        if any(scheduler.element(job, index) in live for _, _, index in batch.tasks())
    ]
    scheduler.cancel(jobs)
    if jobs:
        ledger.cancelled([open_[job].id for job in jobs], "by hpcpipe cancel")
    return len(live)


def _tasks(rundir: RunDir, names: tuple[str, ...]) -> int:
    report = make_report(rundir, fresh=True)
    wanted: set[tuple[str, str]] = set()
    for name in names:
        found = report.record.find(name) or [report.record.one(name)]
        wanted |= {(node.name, node.key(index)) for node, index in found}
    elements = [
        task.place.element
        for task in report.tasks
        if task.state.live and task.place and (task.node, task.key) in wanted
    ]
    make_scheduler(report.record.scheduler, report.record.options).cancel(elements)
    return len(elements)
