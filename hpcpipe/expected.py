"""How long tasks are thought to take: as was said of them, or as they and their like once took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcpipe.axes import label
from hpcpipe.ledger import History
from hpcpipe.plan import NodePlan, Plan
from hpcpipe.record import NodeRecord, read_record
from hpcpipe.rundir import Listing, RunDir

_MOST = 2000  # outcomes of a node that are read


def run_times(plan: Plan, rundir: RunDir, history: History) -> dict[str, Sequence[float]]:
    """Give the seconds of every task, by node, for the nodes of which something is known.

    What the workflow says comes first. Else a task takes what the task of its label took in the
    last run, whatever its code was then; a label that had no good outcome, the mean of its node.
    """
    said = {name: node.node.seconds for name, node in plan.nodes.items() if node.node.seconds}
    if not history.runs:
        return said
    before = read_record(rundir, history.last["run"]).nodes
    listings = rundir.list_all(name for name in plan.nodes if name in before and name not in said)
    for name, listing in listings.items():
        if taken := _taken(rundir, before[name], listing):
            said[name] = _column(plan.nodes[name], taken)
    return said


def _taken(rundir: RunDir, node: NodeRecord, listing: Listing) -> dict[str, float]:
    """Give the seconds that tasks took, by label."""
    taken: dict[str, float] = {}
    for index in range(0, len(node), -(-len(node) // _MOST)):
        key = node.key(index)
        if key in listing.good:
            wall = rundir.read_outcome(node.name, key, None).get("wall")
            if isinstance(wall, int | float):
                taken[node.label(index)] = float(wall)
    return taken


def _column(node: NodePlan, taken: Mapping[str, float]) -> Sequence[float]:
    usual = sum(taken.values()) / len(taken)
    axes = node.node.axes
    return [taken.get(label(axes, index), usual) for index in range(len(node.fates))]
