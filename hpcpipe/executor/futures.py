"""Resolve futures with the outcomes of their tasks, or with how the tasks ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from hpcpipe.errors import LockHeld, SchedulerUnavailable, TasksFailed
from hpcpipe.jobs import Reason, State
from hpcpipe.run import Run
from hpcpipe.status.state import Task
from hpcpipe.store.outcomes import Store
from hpcpipe.store.recent import suggested

if TYPE_CHECKING:
    from hpcpipe.executor.calls import Call

T = TypeVar("T")
_notified: WeakSet[Future[Any]] = WeakSet()  # cancelled futures whose waiters know it


class TaskFuture(Future[T]):
    """A future that tells whether its task was running when that was last looked at.

    Unlike a call in a pool of threads, a running task can still be cancelled.
    """

    seen_running = False

    def running(self) -> bool:
        """Return whether the task was last seen to run."""
        return self.seen_running and not self.done()


def settle_all(run: Run, open_: Mapping[str, TaskFuture[Any]]) -> Iterator[str]:
    """Resolve futures, given by task name, from a report on the run; return the resolved names."""
    yield from _cancel(run, [name for name, one in open_.items() if is_dropped(one)])
    report = run.report()
    tasks = {task.name: task for task in report.tasks}
    good = [name for name in open_ if name not in tasks and not open_[name].cancelled()]
    for name, load in run.loaders(report.record, good):
        try:
            settle(open_[name], value=load())
        except BaseException as error:  # unpickling raises anything, even SystemExit
            settle(open_[name], error=error)
        yield name
    for name in open_.keys() & tasks.keys():
        open_[name].seen_running = tasks[name].state is State.RUNNING
        if tasks[name].state is State.CANCELLED and open_[name].cancel():
            is_dropped(open_[name])
        elif tasks[name].state.bad:
            settle(open_[name], error=_error(run, tasks[name]))
            yield name


def _cancel(run: Run, names: list[str]) -> list[str]:
    """Cancel tasks whose futures were cancelled; return their names, unless it must be retried."""
    try:
        if names:
            run.cancel(tuple(names))
    except (LockHeld, SchedulerUnavailable):
        return []
    return names


def _error(run: Run, task: Task) -> BaseException:
    """Return the exception that a task raised, or one that describes how it ended."""
    where = f"in {task.name}; see {suggested(run.rundir.folder, 'explain', quote(task.name))}"
    if task.place is not None and task.reason in (Reason.ERROR, Reason.EXIT):
        error = Store(run.rundir).get_error(task.node, task.key, task.place.batch.id)
        if isinstance(error, BaseException):
            error.add_note(f"{task.outcome.get('trace', '').rstrip()}\n{where}")
            return error
    return TasksFailed(f"{task.words or task.reason} {where}")


def is_dropped(future: Future[Any]) -> bool:
    """Return whether a future was cancelled, after notifying those who wait for it."""
    if future.cancelled() and future not in _notified:
        _notified.add(future)
        future.set_running_or_notify_cancel()
    return future.cancelled()


def settle(future: Future[Any], value: Any = None, error: BaseException | None = None) -> None:
    """Set the result or exception of a future, unless it was cancelled.

    What a callback raises is logged: other futures must not wait in vain.
    """
    try:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    except InvalidStateError:
        pass  # cancelled just now
    except BaseException:  # Future itself catches and logs an Exception
        import logging

        logging.getLogger(__name__).exception("a callback of %r raised", future)


def add_open(open_: dict[str, TaskFuture[Any]], name: str, future: TaskFuture[Any]) -> None:
    """Add the future of a task; one that the task already has is resolved with it."""
    if name in open_:
        future.add_done_callback(partial(_pass_on, to=open_[name]))
    open_[name] = future


def _pass_on(outcome: Future[Any], to: Future[Any]) -> None:
    if outcome.cancelled():
        to.cancel()
        is_dropped(to)
    elif error := outcome.exception():
        settle(to, error=error)
    else:
        settle(to, value=outcome.result())


def fail_all(calls: Iterable[Call], error: BaseException) -> None:
    """Set an exception on the futures of calls."""
    for call in calls:
        settle(call.future, error=error)
