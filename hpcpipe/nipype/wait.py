"""Wait for a run as nipype's own plugins do: callbacks, crash files, raising the first error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nipype import logging
from nipype.pipeline.plugins.tools import report_crash, report_nodes_not_run

from hpcpipe.jobs import Reason, State
from hpcpipe.nipype.element import Stopped
from hpcpipe.nipype.tasks import Unit
from hpcpipe.run import Run
from hpcpipe.status.poll import next_look
from hpcpipe.status.report import Report, make_report
from hpcpipe.status.state import Task
from hpcpipe.store.outcomes import Store
from hpcpipe.views.status import change_lines

if TYPE_CHECKING:
    import networkx

logger = logging.getLogger("nipype.workflow")

Callback = Callable[[Any, str], object]
Units = Mapping[str, Mapping[str, Unit]]  # see `hpcpipe.nipype.capture.NipypeWorkflow`


def follow(
    run: Run,
    graph: networkx.DiGraph,
    units: Units,
    callback: Callback | None,
    stop_first: bool,
) -> None:
    """Wait until a run has finished; raise the first error.

    ``callback`` is called on every node's start and end. With ``stop_first``, the first failure
    cancels the rest.
    """
    teller = _Teller(units, callback)
    before: Report | None = None
    while True:
        began = time.thread_time()
        report = make_report(run.rundir)
        for line in change_lines(before, report):
            logger.info("hpcpipe: %s", line)
        before = report
        teller.tell(report)
        stopped = stop_first and report.failures
        if stopped:
            break
        if (report.failures or report.awaited) and run.mend(report):
            continue
        if report.finished:
            break
        time.sleep(next_look(began))
    if stopped:
        run.cancel()
    _raise_first(run, graph, units, report)


class _Teller:
    """Calls nipype's ``status_callback`` once per node for its start and once for its end."""

    def __init__(self, units: Units, callback: Callback | None) -> None:
        self._units = units
        self._callback = callback
        self._told: set[tuple[Any, str]] = set()

    def tell(self, report: Report) -> None:
        """Report what is new."""
        if self._callback is None:
            return
        open_ = {(task.node, task.label): task for task in report.tasks}
        for name, record in report.record.nodes.items():
            known = {label for label, _ in record.by_label()}  # if it grows, not all yet
            for label, unit in self._units.get(name, {}).items():
                if unit.sub is None and unit.over is None and label in known:
                    for node in unit.nodes:
                        self._say(node, _events(open_.get((name, label))))

    def _say(self, node: Any, events: Sequence[str]) -> None:
        assert self._callback is not None
        for event in events:
            if (node, event) not in self._told:
                self._told.add((node, event))
                self._callback(node, event)


def _events(task: Task | None) -> Sequence[str]:
    if task is None:
        return ("start", "end")
    if task.state.bad and task.state is not State.BLOCKED:
        return ("start", "exception")
    return ("start",) if task.state is State.RUNNING else ()


def _raise_first(run: Run, graph: networkx.DiGraph, units: Units, report: Report) -> None:
    """Report the nodes that failed, and raise the first one's error, as nipype does."""
    failed = list(_failed(report, units))
    if not failed:
        return
    import networkx

    errors: list[BaseException] = []
    not_run = []
    for task, unit in failed:
        error = _error(run, task)
        if isinstance(error, Stopped):
            continue
        errors.append(error)
        crash = getattr(error, "__notes__", [""])[0].rpartition(": ")[2]
        if not crash:  # its process was killed before it could write one
            crash = report_crash(unit.host, traceback=[f"{task.words}\n"])
        below = list(networkx.dfs_preorder_nodes(graph, unit.host))
        not_run.append({"node": unit.host, "dependents": below, "crashfile": crash})
    report_nodes_not_run(not_run)
    if len(errors) > 1:
        raise RuntimeError(f"{len(errors)} raised. Re-raising first.") from errors[0]
    if errors:
        raise errors[0]


def _failed(report: Report, units: Units) -> Iterator[tuple[Task, Unit]]:
    """Yield the tasks that failed by themselves, with their units; not those blocked by them."""
    for name in report.record.nodes:
        for task in report.failures:
            if task.node == name and task.reason is not Reason.UPSTREAM:
                place = task.label.rpartition("/")[0]  # of a task of those that it becomes
                yield task, units[name].get(task.label) or units[name][place]


def _error(run: Run, task: Task) -> BaseException:
    """Return the exception that a task raised, or an error that describes how it ended."""
    value = None
    if task.place is not None:
        value = Store(run.rundir).get_error(task.node, task.key, task.place.batch.id)
    if isinstance(value, BaseException):
        return value
    return RuntimeError(f"{task.name}: {task.words or task.reason}")
