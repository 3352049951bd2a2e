"""Handing calls over: one array a function, under the run's lock, as any other submission.

A run of calls grows: each submission keeps the tasks of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcpipe.adopting import adopt
from hpcpipe.axes import Axis
from hpcpipe.byvalue import Applied
from hpcpipe.calls import AXIS, Call, Calls
from hpcpipe.digest import Digests
from hpcpipe.draft import draft, scheduler_options
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.files import SIZE, Files
from hpcpipe.functions import Own, pickle_value
from hpcpipe.ledger import Ledger
from hpcpipe.mapped import Each
from hpcpipe.node import Node
from hpcpipe.plan import make_plan
from hpcpipe.record import DIRECT, NodeRecord, read_record
from hpcpipe.rundir import RunDir
from hpcpipe.schedulers import make_scheduler
from hpcpipe.site import Site
from hpcpipe.status import make_report
from hpcpipe.submit import submit_draft
from hpcpipe.workflow import Workflow

_ARGUMENT = "hpcpipe_call"  # of `hpcpipe.byvalue.Applied`
_PATIENCE = 60.0  # seconds to wait for other clients that submit to the same run


def first_group(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Part calls into those of the next submission, of every function what goes with its first
    call, and those left for later."""
    first: dict[str, Call] = {}
    parts: tuple[list[Call], list[Call]] = [], []
    for call in calls:
        parts[not call.goes_with(first.setdefault(call.node, call))].append(call)
    return parts


def submit_calls(
    calls: Sequence[Call], made: Calls, rundir: RunDir, site: Site, site_file: str
) -> None:
    """Hand calls over: one array a function, under the run's lock.

    Raises WorkflowError, ConfigError, SchedulerError, LockHeld; UsageError where the folder is a
    workflow's, whose nodes are not calls.
    """
    if not rundir.exists:
        draft(_workflow(calls, made, rundir), site)  # what fails so leaves nothing behind
    rundir.create()
    with rundir.lock(_PATIENCE):
        adopt(rundir, make_scheduler(site.scheduler, scheduler_options(site)))
        _keep_apart(calls, made, rundir)
        drafted = draft(_workflow(calls, made, rundir), site)
        submit_draft(drafted, {DIRECT: True}, site_file)


def nodes_so_far(rundir: RunDir) -> Mapping[str, NodeRecord]:
    """Give the nodes of a run of calls; raises UsageError where it is that of a workflow."""
    runs = Ledger(rundir.ledger).read().runs
    if not runs:
        return {}
    record = read_record(rundir, runs[-1]["run"])
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
        rows = Each([call.arguments for call in some], axis, axis.labels)
        first = some[0]
        inputs = {_ARGUMENT: rows, **first.constants}
        applied, resources = Applied(first.function), first.resources
        workflow.nodes[name] = Node(name, applied, inputs, (axis,), resources, first.folder)
    return workflow


def _keep_apart(calls: Sequence[Call], made: Calls, rundir: RunDir) -> None:
    """Rename the calls whose name another client gave to another call that is good or under way.

    One that went wrong is replaced: nobody waits for it any more.
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
    """Say why a call's arguments cannot be sent to a node; None where they can."""
    try:
        with own.by_value():
            pickle_value(call.arguments, own)
            Digests(Files(), own).digest(call.arguments)
    except Exception as error:
        return WorkflowError(f"{call.name}: its arguments cannot be sent to a node: {error}")
    return None
