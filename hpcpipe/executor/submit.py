"""Submit calls: one array per function, under the run's lock, like any other submission.

A run of calls grows: each submission keeps the tasks of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.executor.calls import AXIS, Call, Calls
from hpcpipe.graph.axes import Axis
from hpcpipe.graph.each import Each
from hpcpipe.graph.node import Node
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.digest import Digests
from hpcpipe.keys.file_digest import SIZE, Files
from hpcpipe.keys.pickling import Own, pickle_value
from hpcpipe.keys.plan import make_plan
from hpcpipe.site import Site
from hpcpipe.status.report import make_report
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import DIRECT, latest_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.prepare import draft
from hpcpipe.submit.recover import recover
from hpcpipe.submit.submit import submit_draft
from hpcpipe.worker.unpickle import Applied

_ARGUMENT = "hpcpipe_call"  # the parameter of `hpcpipe.worker.unpickle.Applied`
_PATIENCE = 60.0  # seconds to wait for the lock of other clients that submit to the same run


def first_group(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Split calls into those that can share a node with their function's first, and the rest."""
    first: dict[str, Call] = {}
    parts: tuple[list[Call], list[Call]] = [], []
    for call in calls:
        parts[not call.goes_with(first.setdefault(call.node, call))].append(call)
    return parts


def submit_calls(
    calls: Sequence[Call], made: Calls, rundir: RunDir, site: Site, site_file: str
) -> None:
    """Submit calls: one array per function, under the run's lock.

    Raises WorkflowError, ConfigError, SchedulerError, LockHeld, and UsageError if the folder is
    that of a workflow, whose nodes are not calls.
    """
    if not rundir.exists:
        draft(_workflow(calls, made, rundir), site)  # a failure here leaves nothing behind
    rundir.create()
    with rundir.lock(_PATIENCE):
        recover(rundir, submitting=True)
        _keep_apart(calls, made, rundir)
        drafted = draft(_workflow(calls, made, rundir), site)
        submit_draft(drafted, {DIRECT: True}, site_file)


def nodes_so_far(rundir: RunDir) -> Mapping[str, NodeRecord]:
    """Return the nodes of a run of calls; raise UsageError if it is the run of a workflow."""
    if not rundir.exists:
        return {}
    record = latest_record(rundir)
    if DIRECT not in record.source:
        raise UsageError(
            f"{rundir.folder}: the run of a workflow; give the executor another name or base_dir"
        )
    return record.nodes


def _workflow(calls: Sequence[Call], made: Calls, rundir: RunDir) -> Workflow:
    workflow = Workflow(rundir.folder.name, rundir.folder.parent, source=made.source)
    by_node: dict[str, list[Call]] = {}
    for call in calls:
        by_node.setdefault(call.node, []).append(call)
    for name, some in by_node.items():
        axis = Axis(AXIS, tuple(call.label for call in some))
        # The label is part of the input: a call that is repeated runs again.
        rows = Each([(*call.arguments, call.label) for call in some], axis, axis.labels)
        first = some[0]
        inputs = {_ARGUMENT: rows, **first.constants}
        applied, resources = Applied(first.function), first.resources
        workflow.nodes[name] = Node(name, applied, inputs, (axis,), resources, first.folder)
    return workflow


def _keep_apart(calls: Sequence[Call], made: Calls, rundir: RunDir) -> None:
    """Rename calls whose name belongs to another client's call that succeeded or is in flight.

    A call that failed is replaced: nobody waits for it any more.
    """
    labels = {name: dict(node.by_label()) for name, node in nodes_so_far(rundir).items()}
    clashing = [call for call in calls if call.label in labels.get(call.node, ())]
    if not clashing:
        return
    bad = {(t.node, t.label) for t in make_report(rundir).failures}
    files = Files()
    while clashing:
        nodes = make_plan(_workflow(clashing, made, rundir), files=files).nodes
        keys = {
            (name, label): node.keys[at * SIZE : at * SIZE + SIZE]
            for name, node in nodes.items()
            for at, label in enumerate(node.node.axes[0].labels)
        }
        clashing = [
            call
            for call in clashing
            if labels[call.node].get(call.label) not in (None, keys[call.node, call.label])
            and (call.node, call.label) not in bad
        ]
        for call in clashing:
            made.rename(call)


def cannot_travel(call: Call, own: Own) -> WorkflowError | None:
    """Return why a call's arguments cannot be sent to a node; None if they can."""
    try:
        with own.by_value():
            pickle_value(call.arguments, own)
            Digests(Files(), own).digest(call.arguments)
    except Exception as error:
        return WorkflowError(f"{call.name}: its arguments cannot be sent to a node: {error}")
    return None
