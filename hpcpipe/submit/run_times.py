"""Expected run times: declared by the workflow, or measured in earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcpipe.graph.axes import label
from hpcpipe.keys.plan import NodePlan, Plan
from hpcpipe.store.ledger import History
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import latest_record
from hpcpipe.store.rundir import RunDir

_MOST = 2000  # outcomes of a node that are read


def run_times(plan: Plan, rundir: RunDir, history: History) -> dict[str, Sequence[float]]:
    """Return the seconds of every task, by node, for the nodes of which something is known.

    The workflow's own figure comes first. Else a task takes what the task of its label took in the
    last run, whatever its code was then; a label that has not succeeded, the mean of its node.
    """
    seconds = {name: node.node.seconds for name, node in plan.nodes.items() if node.node.seconds}
    if not history.runs:
        return seconds
    before = latest_record(rundir, history).nodes
    listings = Store(rundir).has(
        name for name in plan.nodes if name in before and name not in seconds
    )
    for name, listing in listings.items():
        if taken := _taken(rundir, before[name], listing):
            seconds[name] = _column(plan.nodes[name], taken)
    return seconds


def _taken(rundir: RunDir, node: NodeRecord, listing: Listing) -> dict[str, float]:
    """Return the seconds that tasks took, by label."""
    sample = range(0, len(node), max(1, -(-len(node) // _MOST)))
    labels = {
        key: node.label(index) for index in sample if (key := node.key(index)) in listing.succeeded
    }
    return {
        labels[key]: float(wall)
        for key, record in Store(rundir).records(node.name, labels, listing)
        if isinstance(wall := record.get("wall"), int | float)
    }


def _column(node: NodePlan, taken: Mapping[str, float]) -> Sequence[float]:
    usual = sum(taken.values()) / len(taken)
    axes = node.node.axes
    return [taken.get(label(axes, index), usual) for index in range(len(node.fates))]
