"""Tasks that succeeded by their outcome, although a process of theirs was killed for memory.

The worker counts what the kernel kills, where it can read the cgroup of its job. Elsewhere only the
scheduler's accounting knows. It is asked once for each run, by whoever looks at the run first when
it has ended for a while, so that looking at a large run that has ended stays quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.jobs import Reason
from hpcpipe.status.instances import Instances
from hpcpipe.store.ledger import History, Submission
from hpcpipe.store.outcomes import Listing, Store
from hpcpipe.store.record import BatchRecord, RunRecord
from hpcpipe.store.rundir import RunDir


def fail_killed(
    rundir: RunDir,
    record: RunRecord,
    history: History,
    listings: Mapping[str, Listing],
    settled: float,
) -> bool:
    """Turn the outcomes of such tasks of a run into failures; return whether there were any.

    Does nothing where an outcome was written after ``settled``: the accounting may be late. What
    was made from the results of such tasks is made again too. Tasks of packs are left to the
    worker: the accounting knows elements only.
    """
    store = Store(rundir)
    mark = b"%d\n" % record.run
    try:
        if rundir.accounted.exists() and rundir.accounted.read_bytes() == mark:
            return False
        if store.changed(record.nodes) > settled:
            return False
        killed = [*_find(record, history, listings)]
        rundir.accounted.write_bytes(mark)
        for node, key, batch, native in killed:
            words = f"{native}: the scheduler killed a process of it for memory, and it went on"
            store.fail(node, key, batch, cause="memory", error=words)
        _drop_dependents(store, record, {(node, key) for node, key, _, _ in killed})
    except (OSError, SchedulerUnavailable):  # somebody else's run, or not to be asked now
        return False
    return bool(killed)


def _find(
    record: RunRecord, history: History, listings: Mapping[str, Listing]
) -> Iterator[tuple[str, str, str, str]]:
    """Ask the accounting: yield node, key and batch of such tasks, and what it says of them."""
    instances = Instances(history)
    asked: dict[str, list[tuple[BatchRecord, Submission]]] = {}
    for batch in record.batches.values():
        one = history.submissions.get(batch.id)
        if one and one.job and not one.refused and batch.starts is None:
            asked.setdefault(one.instance, []).append((batch, one))
    for instance, pairs in asked.items():
        adapter = instances.reach(instance)
        if not adapter.capabilities.tells_kills:
            continue
        jobs = {one.job for _, one in pairs if one.job}
        ends = adapter.account(jobs, min(one.time for _, one in pairs))
        for batch, one in pairs:
            for node, key, index in batch.tasks():
                end = ends.get(adapter.element(one.job or "", index))
                if end and end.reason is Reason.MEMORY and key in listings[node].succeeded:
                    yield node, key, batch.id, end.native


def _drop_dependents(store: Store, record: RunRecord, failed: set[tuple[str, str]]) -> None:
    """Remove the results of tasks that depend on those that failed; upstream nodes come first."""
    for name, node in record.nodes.items() if failed else ():
        for index in range(len(node)):
            parents = (
                (edge.upstream, record.nodes[edge.upstream].key(parent))
                for edge in node.edges
                for parent in edge.parents(index)
            )
            if not failed.isdisjoint(parents):
                failed.add((name, node.key(index)))
                store.clear(name, node.key(index))
