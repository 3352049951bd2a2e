"""Takes from a workflow of nipype what its `run` would hand to a plugin, and makes it ours."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.axes import label
from hpcpipe.ledger import Ledger
from hpcpipe.nipype.convert import fill
from hpcpipe.nipype.units import Unit
from hpcpipe.record import RunRecord, read_record
from hpcpipe.rundir import RunDir
from hpcpipe.status import make_report
from hpcpipe.workflow import Workflow

if TYPE_CHECKING:
    import networkx


@dataclass(eq=False)
class NipypeWorkflow(Workflow):
    """A workflow of hpcpipe made from one of nipype; ``units`` are its tasks, by node."""

    units: Mapping[str, Sequence[Unit]] = field(default_factory=dict)
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
    """Make a workflow of the graph that nipype hands to a plugin.

    ``usual`` are the plugin's arguments. ``again`` goes on with what the last run began, even if
    nipype would begin anew. Raises WorkflowError for what cannot be read.
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
        node.output_dir()  # settled now, as without a base_dir each look makes another folder
        if hasattr(node, "use_plugin"):
            node.use_plugin = None  # an unpicklable plugin_args would make the node so
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
    """Choose whether outcomes of the last run count.

    nipype's hashes decide what must run. So a new sweep begins where the last one finished what
    nipype now wants once more; unless some of it is still live, when this run joins it.
    """
    if not rundir.exists:
        return 1
    record = read_record(rundir, Ledger(rundir.ledger).read().last["run"])
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
    """Leads out of nipype's `run` with what it hands to a plugin."""

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
    """Make a workflow of hpcpipe of one of nipype that was read from a file."""
    from nipype import logging
    from nipype.pipeline.engine import Workflow as Theirs

    logger = logging.getLogger("nipype.workflow")
    level = logger.level
    logger.setLevel("WARNING")  # it speaks on standard output, which is ours
    reports: list[Callable[[], object]] = []
    write = workflow._write_report_info
    # Put off: a workflow that is only planned is to leave nothing.
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
