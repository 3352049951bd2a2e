"""Cancelling: a whole run, or some tasks, by the scheduler's own command."""

from __future__ import annotations

from hpcpipe.errors import UsageError
from hpcpipe.ledger import Ledger
from hpcpipe.model import State
from hpcpipe.rundir import RunDir
from hpcpipe.schedulers import make_scheduler
from hpcpipe.status import Report, Task, make_report


def cancel(rundir: RunDir, names: tuple[str, ...] = ()) -> int:
    """Cancel all live tasks, or those of the given names; return how many there were.

    Raises UsageError for a name that no task has, SchedulerError where the scheduler refuses.
    """
    report = make_report(rundir, fresh=True)
    with rundir.lock():
        chosen = _chosen(report, names)
        elements = [task.place.element for task in chosen if task.place and task.place.element]
        scheduler = make_scheduler(report.record.scheduler, report.record.options)
        history = Ledger(rundir.ledger).read()
        if names:
            scheduler.cancel(elements)
        else:  # by job, whatever was submitted last or before
            open_ = {t.place.submission.batch for t in chosen if t.place}
            scheduler.cancel(
                [s.job for s in history.submissions.values() if s.job and s.batch in open_]
            )
            if open_:
                Ledger(rundir.ledger).cancelled(sorted(open_), "hpcpipe cancel")
        rundir.asked.unlink(missing_ok=True)
    return len(chosen)


def _chosen(report: Report, names: tuple[str, ...]) -> list[Task]:
    live = [t for t in report.tasks if t.state.live and t.place and t.state is not State.WAITING]
    if not names:
        return live
    wanted: set[tuple[str, str]] = set()
    for name in names:
        found = report.record.find(name)
        if not found:
            raise UsageError(f"{name}: no such task; see hpcpipe status")
        wanted |= {(node.name, node.key(index)) for node, index in found}
    return [task for task in live if (task.node, task.key) in wanted]
