"""Waits for a run as nipype's own plugins do: callbacks, crash files, the first error raised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nipype import logging
from nipype.pipeline.plugins.tools import report_crash, report_nodes_not_run

from hpcpipe.asking import next_look
from hpcpipe.model import Reason, State
from hpcpipe.nipype.element import Stopped
from hpcpipe.nipype.units import Unit
from hpcpipe.run import Run
from hpcpipe.show import change_lines
from hpcpipe.status import Report, Task, make_report

if TYPE_CHECKING:
    import networkx

logger = logging.getLogger("nipype.workflow")

Callback = Callable[[Any, str], object]


def follow(
    run: Run,
    graph: networkx.DiGraph,
    units: Mapping[str, Sequence[Unit]],
    callback: Callback | None,
    stop_first: bool,
) -> None:
    """Wait until nothing of a run may change any more; raise the first error there was.

    ``callback`` is told of every node's start and end. With ``stop_first`` the first failure
    cancels the rest.
    """
    teller = _Teller(units, callback)
    before: Report | None = None
    while True:
        began = time.thread_time()
        report = make_report(run.rundir)
        for line in change_lines(before, report):
            logger.info("hpcpipe: %s", line)
        teller.tell(report)
        stopped = stop_first and report.failures
        if report.finished or stopped:
            break
        before = report
        time.sleep(next_look(began))
    if stopped:
        run.cancel()
    _raise_first(run, graph, units, report)


class _Teller:
    """Tells nipype's ``status_callback`` of each node once that it started, and how it ended."""

    def __init__(self, units: Mapping[str, Sequence[Unit]], callback: Callback | None) -> None:
        self._units = units
        self._callback = callback
        self._told: set[tuple[Any, str]] = set()

    def tell(self, report: Report) -> None:
        """Tell what is new in a report."""
        if self._callback is None:
            return
        open_ = {(task.node, task.label): task for task in report.tasks}
        for name, record in report.record.nodes.items():
            for at, unit in enumerate(self._units.get(name, ())):
                task = open_.get((name, record.label(at)))
                if unit.sub is None:
                    for node in unit.nodes:
                        self._say(node, _events(task))

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


def _raise_first(
    run: Run, graph: networkx.DiGraph, units: Mapping[str, Sequence[Unit]], report: Report
) -> None:
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
        if not crash:  # its process was ended, and could write none
            crash = report_crash(unit.host, traceback=[f"{task.words}\n"])
        below = list(networkx.dfs_preorder_nodes(graph, unit.host))
        not_run.append({"node": unit.host, "dependents": below, "crashfile": crash})
    report_nodes_not_run(not_run)
    if len(errors) > 1:
        raise RuntimeError(f"{len(errors)} raised. Re-raising first.") from errors[0]
    if errors:
        raise errors[0]


def _failed(report: Report, units: Mapping[str, Sequence[Unit]]) -> Iterator[tuple[Task, Unit]]:
    """Give what failed by itself, with its unit; not what waits for that in vain."""
    for name, record in report.record.nodes.items():
        labels = {record.label(at): unit for at, unit in enumerate(units[name])}
        for task in report.failures:
            if task.node == name and task.reason is not Reason.UPSTREAM:
                yield task, labels[task.label]


def _error(run: Run, task: Task) -> BaseException:
    """Load what a task raised; for one that could raise nothing, make an error of its words."""
    value = None
    if task.place is not None:
        value = run.rundir.read_error(task.node, task.key, task.place.batch.id)
    if isinstance(value, BaseException):
        return value
    return RuntimeError(f"{task.name}: {task.words or task.reason}")
