"""Cancelling: a whole run, or some tasks, by the scheduler's own command."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from hpcpipe.errors import ResultError, SchedulerUnavailable
from hpcpipe.jobs import JobStatus
from hpcpipe.quantities import counted
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.status.places import Place
from hpcpipe.status.report import make_report
from hpcpipe.status.state import Task
from hpcpipe.store.ledger import BY_US, History, Ledger, Submission
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.record import BatchRecord, read_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.locking import locked
from hpcpipe.submit.recover import recover


class Cancelled(NamedTuple):
    """How many tasks were cancelled, and which of them only because they shared an element."""

    tasks: int
    along: tuple[str, ...] = ()


def cancel(rundir: RunDir, names: tuple[str, ...] = ()) -> Cancelled:
    """Cancel all that is queued or running, or the tasks of the given names.

    Without names also what earlier submissions left in the queue, whatever became of their
    records. Raises UsageError for a name that no task has, SchedulerError where the scheduler
    refuses, SchedulerUnavailable where one that has jobs cannot be asked from here.
    """
    with locked(rundir):
        recover(rundir)
        try:
            return _tasks(rundir, names) if names else _everything(rundir)
        finally:
            rundir.asked.unlink(missing_ok=True)


def _everything(rundir: RunDir) -> Cancelled:
    ledger = Ledger(rundir.ledger)
    ledger.stopped()  # first: a task that is ended by this calls for what would retry others
    history = ledger.read()
    instances = Instances(history)
    batches = _batches(rundir, history)
    open_: dict[str, list[Submission]] = {}
    for one in history.submissions.values():
        if one.job and not one.cancelled:
            open_.setdefault(one.instance, []).append(one)
    count, unreachable = 0, []
    for instance, submissions in open_.items():
        try:
            count += _all_of(rundir, submissions, batches, instances, ledger)
        except SchedulerUnavailable as error:
            unreachable.append(f"Jobs at {instance} could not be cancelled: {error}")
    if unreachable:
        some = f"{counted(count, 'task')} cancelled elsewhere."
        done = some if count else "Nothing was cancelled."
        raise SchedulerUnavailable("\n".join(unreachable) + f"\n{done}")
    return Cancelled(count)


def _all_of(
    rundir: RunDir,
    submissions: list[Submission],
    batches: Mapping[str, BatchRecord],
    instances: Instances,
    ledger: Ledger,
) -> int:
    """Cancel all jobs of one scheduler that are live; return how many tasks they were of."""
    scheduler = instances.reach(submissions[0].instance)
    listings = Store(rundir).has({node for batch in batches.values() for node in batch.nodes})
    live = _live(scheduler, submissions, batches, listings)
    count, jobs, spared = 0, {}, set()
    for one in submissions:
        batch, job = batches.get(one.batch), one.job or ""
        if not one.has_tasks:
            elements, tasks = len(scheduler.poll([job])), 0
        elif batch is None:  # its record is lost: all that is known are elements
            elements = len(scheduler.poll([job]))
            tasks = elements
        else:
            mine = [t for t in batch.tasks() if scheduler.element(job, t[2]) in live]
            elements = tasks = len(mine)
            if batch.starts is not None:  # an element that runs has ended some of its tasks
                tasks = sum(not _ended(listings[t[0]], t[1], batch.id) for t in mine)
            spared |= {
                scheduler.element(job, index)
                for node, key, index in batch.tasks()
                if key not in listings[node].succeeded
            } - live.keys()
        if elements:
            jobs[one.batch] = job
            count += tasks
    for name in jobs:  # first: what the scheduler starts meanwhile looks there
        Store(rundir).cancel(name)
    scheduler.cancel([*jobs.values()])
    if jobs:
        ledger.cancelled([*jobs], BY_US, sorted(spared))
    return count


def _live(
    scheduler: Scheduler,
    submissions: list[Submission],
    batches: Mapping[str, BatchRecord],
    listings: Mapping[str, Listing],
) -> Mapping[str, JobStatus]:
    """Find the elements that the queue lists, or that only the accounting knows to be live."""
    jobs = {one.job or "": batches[one.batch] for one in submissions if one.batch in batches}
    live = scheduler.poll([one.job for one in submissions if one.job])
    unseen = {
        job
        for job, batch in jobs.items()
        for node, key, index in batch.tasks()
        if scheduler.element(job, index) not in live and not _ended(listings[node], key, batch.id)
    }
    answers = scheduler.account(unseen, min(one.time for one in submissions))
    return {**{one: word for one, word in answers.items() if isinstance(word, JobStatus)}, **live}


def _batches(rundir: RunDir, history: History) -> dict[str, BatchRecord]:
    """Read what is known of all batches; of a run whose record is lost nothing is."""
    found: dict[str, BatchRecord] = {}
    for run in {one.run for one in history.submissions.values() if one.job and not one.cancelled}:
        try:
            found |= read_record(rundir, run).batches
        except ResultError:
            continue
    return found


def _ended(listing: Listing, key: str, batch: str) -> bool:
    return key in listing.succeeded or batch in listing.errors.get(key, ())


def _tasks(rundir: RunDir, names: tuple[str, ...]) -> Cancelled:
    report = make_report(rundir, fresh=True)
    wanted: set[tuple[str, str]] = set()
    for name in names:
        found = report.record.find(name) or [report.record.one(name)]
        wanted |= {(node.name, node.key(index)) for node, index in found}
    live = [
        (task, task.place, task.place.id)
        for task in report.tasks
        if task.state.live and task.place and task.place.id
    ]
    dropped: dict[str, dict[str, None]] = {}  # elements by batch, each once
    elements: set[ElementId] = set()
    for task, place, id_ in live:
        if (task.node, task.key) in wanted:
            dropped.setdefault(place.batch.id, {})[place.element] = None
            elements.add(id_)
    instances = Instances(Ledger(rundir.ledger).read())
    _check_reached({one.instance for one in elements}, instances)
    for batch, indices in _indices(live, elements).items():
        Store(rundir).cancel(batch, indices)
    for instance in {one.instance for one in elements}:
        mine = [one.spelled for one in elements if one.instance == instance]
        instances.reach(instance).cancel(sorted(mine))
    # Noted here, as some schedulers forget at once what is cancelled before it began.
    for batch, some in dropped.items():
        Ledger(rundir.ledger).dropped(batch, [*some])
    gone = [task for task, _, id_ in live if id_ in elements]
    along = tuple(task.name for task in gone if (task.node, task.key) not in wanted)
    return Cancelled(len(gone), along)


def _check_reached(named: Collection[str], instances: Instances) -> None:
    """Raise SchedulerUnavailable where one that has jobs cannot be asked from here."""
    for instance in named:
        try:
            instances.reach(instance)
        except SchedulerUnavailable as error:
            raise SchedulerUnavailable(
                f"Jobs at {instance} could not be cancelled: {error}\nNothing was cancelled."
            ) from error


def _indices(
    live: Collection[tuple[Task, Place, ElementId]], elements: Collection[ElementId]
) -> dict[str, list[int] | None]:
    """Sort the array indices of elements by batch; None for a plain job, which has none."""
    found: dict[str, set[int] | None] = {}
    for _, place, id_ in live:
        if id_ in elements:
            one = found.setdefault(place.batch.id, set())
            if place.array_index is None or one is None:
                found[place.batch.id] = None
            else:
                one.add(place.array_index)
    return {batch: None if some is None else sorted(some) for batch, some in found.items()}
