"""What becomes of futures: each gets the outcome that its task left, or is told how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from hpcpipe.calls import Call
from hpcpipe.errors import LockHeld, SchedulerUnavailable, TasksFailed
from hpcpipe.model import Reason, State
from hpcpipe.run import Run
from hpcpipe.status import Task


def settle_all(run: Run, open_: Mapping[str, Future[Any]]) -> Iterator[str]:
    """Settle futures by the names of their tasks, from a report on the run; name the settled."""
    yield from _cancel(run, [name for name, one in open_.items() if is_dropped(one)])
    report = run.report()
    tasks = {task.name: task for task in report.tasks}
    good = [name for name in open_ if name not in tasks and not open_[name].cancelled()]
    for name, load in run.loaders(report.record, good):
        try:
            settle(open_[name], value=load())
        except Exception as error:  # unpickling raises anything
            settle(open_[name], error=error)
        yield name
    for name in open_.keys() & tasks.keys():
        if tasks[name].state is State.CANCELLED and open_[name].cancel():
            is_dropped(open_[name])
        elif tasks[name].state.bad:
            settle(open_[name], error=_error(run, tasks[name]))
            yield name


def _cancel(run: Run, names: list[str]) -> list[str]:
    """Cancel tasks whose futures were; name them, unless it must be tried again."""
    try:
        if names:
            run.cancel(tuple(names))
    except (LockHeld, SchedulerUnavailable):
        return []
    return names


def _error(run: Run, task: Task) -> BaseException:
    """Give the exception that a task ended with, or one that says how it ended."""
    where = f"in {task.name}; see hpcpipe explain {task.name} --run {run.rundir.folder}"
    if task.place is not None and task.reason in (Reason.ERROR, Reason.EXIT):
        error = run.rundir.read_error(task.node, task.key, task.place.batch.id)
        if isinstance(error, BaseException):
            error.add_note(f"{task.outcome.get('trace', '').rstrip()}\n{where}")
            return error
    return TasksFailed(f"{task.words or task.reason} {where}")


def is_dropped(future: Future[Any]) -> bool:
    """Tell whether a future was cancelled, and tell so those who wait for it."""
    if future.cancelled():
        with suppress(InvalidStateError, RuntimeError):
            future.set_running_or_notify_cancel()
        return True
    return False


def settle(future: Future[Any], value: Any = None, error: BaseException | None = None) -> None:
    """Give a future its result or its exception, unless it was cancelled."""
    with suppress(InvalidStateError):  # cancelled just now
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def add_open(open_: dict[str, Future[Any]], name: str, future: Future[Any]) -> None:
    """Add a task's future; one that the task has already gets what this one gets."""
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
    """Give an exception to the futures of calls."""
    for call in calls:
        settle(call.future, error=error)
