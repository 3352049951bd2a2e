"""Tasks of earlier plans that the latest one leaves out, though they did not succeed."""

from __future__ import annotations

from contextlib import suppress

from hpcpipe.errors import ResultError
from hpcpipe.store.ledger import Ledger, is_cleaned
from hpcpipe.store.outcomes import Store
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.record import DIRECT, latest_record, read_record
from hpcpipe.store.rundir import RunDir


def find_left_out(rundir: RunDir) -> list[str]:
    """Return the tasks that were planned once, have not succeeded, and are no longer planned."""
    history = Ledger(rundir.ledger).read()
    if len(history.runs) < 2:
        return []
    latest = latest_record(rundir, history)
    if DIRECT in latest.source:  # which keeps all calls
        return []
    seen = {latest.plan}
    found: dict[str, tuple[str, str]] = {}
    for run in (run for run in history.runs if not is_cleaned(run)):
        with suppress(ResultError):
            record = read_record(rundir, run["run"])
            if record.plan not in seen:
                seen.add(record.plan)
                for name, node in record.nodes.items():
                    found |= _beyond(node, latest.nodes.get(name))
    listings = Store(rundir).has({node for node, _ in found.values()})
    return [
        name
        for name, (node, key) in found.items()
        if key not in listings[node].succeeded and key not in listings[node].partial
    ]


def _beyond(node: NodeRecord, now: NodeRecord | None) -> dict[str, tuple[str, str]]:
    """Return the node and key of its tasks whose label it no longer has, by name."""
    labels = set() if now is None else {now.label(index) for index in range(len(now))}
    return {
        node.task(index): (node.name, node.key(index))
        for index in range(len(node))
        if index not in node.done and node.label(index) not in labels
    }
