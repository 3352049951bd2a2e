"""Capture what a nipype workflow's `run` would pass to a plugin, and convert it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.graph.axes import label
from hpcpipe.graph.workflow import Workflow
from hpcpipe.nipype.convert import fill
from hpcpipe.nipype.resources import software_of
from hpcpipe.nipype.spmcall import check_texts
from hpcpipe.nipype.tasks import Unit
from hpcpipe.status.report import make_report
from hpcpipe.store.record import RunRecord, latest_record
from hpcpipe.store.rundir import RunDir

if TYPE_CHECKING:
    import networkx


@dataclass(eq=False)
class NipypeWorkflow(Workflow):
    """An hpcpipe workflow converted from a nipype one; ``units`` are its tasks, by node and
    label; one of a node that grows stands for all tasks that its place becomes."""

    units: Mapping[str, Mapping[str, Unit]] = field(default_factory=dict)
    report: Callable[[], object] | None = None  # writes nipype's own report on the graph

    def begin(self) -> None:
        if self.report is not None:
            self.report()


def convert(
    graph: networkx.DiGraph,
    config: Mapping[str, Any],
    *,
    updatehash: bool = False,
    usual: Mapping[str, Any] | None = None,
    source: str = "",
    again: bool = False,
) -> NipypeWorkflow:
    """Return the workflow of a graph that nipype passes to a plugin.

    ``usual`` are the plugin's arguments. ``again`` continues what the last run began, even if
    nipype would start over. Raises WorkflowError for arguments that cannot be read, and for text
    that SPM cannot be given.
    """
    from nipype import logging
    from nipype.utils.misc import str2bool

    first = next(iter(graph))
    if first.base_dir is None:
        logging.getLogger("nipype.workflow").warning(
            "hpcpipe: the workflow has no base_dir, so nipype makes each node a folder in this "
            "machine's temporary one, which no other may see; set wf.base_dir"
        )
    for node in graph:
        if software_of(node.interface) == "spm":
            texts = node.inputs.get_traitsfree()
            texts.pop("matlab_cmd", None)
            check_texts(node.fullname, [node.output_dir(), *texts.values()])
        node.output_dir()  # fix it now: without a base_dir each call creates another folder
        if hasattr(node, "use_plugin"):
            node.use_plugin = None  # unpicklable plugin_args would make the node unpicklable
    name = (first._hierarchy or first.name).partition(".")[0]
    name = name if name[0].isalpha() or name[0] == "_" else f"_{name}"
    workflow = NipypeWorkflow(name, first.base_dir or Path.cwd(), source=source)
    rundir = RunDir(workflow.folder)
    stops = str2bool(config["execution"]["stop_on_first_crash"])
    stop = str(rundir.stopped(secrets.token_hex(4))) if stops else ""
    workflow.units = fill(workflow, graph, updatehash=updatehash, usual=usual or {}, stop=stop)
    workflow.sweep = _sweep(workflow, rundir, again)
    return workflow


def _sweep(workflow: Workflow, rundir: RunDir, again: bool) -> int:
    """Return the sweep: the last one if its outcomes still count, else a new one.

    nipype's hashes decide what must run. A new sweep begins if the last one finished something that
    nipype wants to run again, unless part of it is still live: this run then joins it.
    """
    if not rundir.exists:
        return 1
    record = latest_record(rundir)
    if again:
        return record.sweep
    report = make_report(rundir, fresh=True)
    if not report.finished:
        return record.sweep
    bad = {(task.node, task.label) for task in report.tasks}
    finished = set(_finished(record)) - bad
    wanted = (
        (name, label(node.axes, index) if node.axes else "")
        for name, node in workflow.nodes.items()
        for index in range(node.size)
        if index not in node.done
    )
    return record.sweep + (not finished.isdisjoint(wanted))


def _finished(record: RunRecord) -> Iterator[tuple[str, str]]:
    for name, node in record.nodes.items():
        yield from ((name, node.label(i)) for i in range(len(node)) if i not in node.done)


# --- a workflow that was only read ---------------------------------------------------------------


class _Taken(BaseException):
    """Raised to leave nipype's `run` with what it passes to a plugin."""

    def __init__(self, graph: networkx.DiGraph, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.graph, self.config = graph, config


class _TakingPlugin:
    plugin_args: Mapping[str, Any] = {}

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        del updatehash
        raise _Taken(graph, config)


def take(
    workflow: Any, source: str = "", usual: Mapping[str, Any] | None = None, again: bool = False
) -> NipypeWorkflow:
    """Return the hpcpipe workflow of a nipype workflow that was read from a file."""
    from nipype import logging
    from nipype.pipeline.engine import Workflow as Theirs

    logger = logging.getLogger("nipype.workflow")
    level = logger.level
    logger.setLevel("WARNING")  # it would write to our standard output
    reports: list[Callable[[], object]] = []
    write = workflow._write_report_info
    # Postponed: planning a workflow must leave nothing behind.
    workflow._write_report_info = lambda *said: reports.append(lambda: write(*said))
    try:
        Theirs.run(workflow, plugin=_TakingPlugin())
    except _Taken as taken:
        ours = convert(taken.graph, taken.config, usual=usual, source=source, again=again)
        ours.report = next(iter(reports), None)
        return ours
    finally:
        logger.setLevel(level)
        del workflow._write_report_info
    raise AssertionError("nipype ran no plugin")
