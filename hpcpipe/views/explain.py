"""All that is known about one task: its state, outcome, log and files; or about one node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from os.path import exists  # unlike Path's, where a folder may not be read
from shlex import quote
from typing import Any

from hpcpipe.errors import SchedulerUnavailable, UsageError
from hpcpipe.jobs import JobEnd, State
from hpcpipe.schedulers.base import TellsStarts
from hpcpipe.status.instances import Instances
from hpcpipe.status.logs import Log, log_of
from hpcpipe.status.places import find_places
from hpcpipe.status.report import make_report
from hpcpipe.status.state import Task
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.outcomes import Store
from hpcpipe.store.record import RunRecord, latest_record, read_record
from hpcpipe.store.rundir import RunDir
from hpcpipe.views.status import command, counted_states, explain_lines, queue_lines

_TAIL = 12  # last lines of a log that are shown


def find_log(rundir: RunDir, name: str) -> Log:
    """Return the log of a task's latest submission; raise UsageError if it was never submitted."""
    node, index = latest_record(rundir).one(name)
    key = node.key(index)
    history = Ledger(rundir.ledger).read()
    for number in sorted({one.run for one in history.submissions.values()}, reverse=True):
        for batch in read_record(rundir, number).batches.values():
            if node.name in batch.nodes and bytes.fromhex(key) in batch.keys:
                places = {found: index for _, found, index in batch.tasks()}
                if key in places:
                    return log_of(rundir, batch, node.name, key, places[key])
    raise UsageError(f"{name}: was never submitted")


def explain(rundir: RunDir, name: str) -> Iterator[str]:
    """Yield all that is known about a task, or where the tasks of a node went and why."""
    nodes = latest_record(rundir).nodes
    return (
        explain_node(rundir, name)
        if name in nodes and (nodes[name].axes or nodes[name].awaited)
        else explain_task(rundir, name)
    )


def explain_node(rundir: RunDir, name: str) -> Iterator[str]:
    """Yield the states of a node's tasks, and the queue of each of its batches."""
    report = make_report(rundir)
    node = report.record.nodes[name]
    counts = report.counts[name]
    states = counted_states(counts) or "none yet"
    yield f"{name}  {len(node)} task{'s' * (len(node) != 1)}: {states}"
    if node.awaited:
        what = "the rest is" if len(node) else "how many there are is"
        yield f"  {what} known when {' and '.join(dict(node.awaited))} has ended"
    asked = {batch.id: batch for batch in report.record.batches.values() if name in batch.nodes}
    if not (asked or node.awaited):
        yield "  This run submitted none of its tasks: all were done or in flight."
    seen: set[tuple[str, ...]] = set()
    for batch in asked.values():
        lines = (f"  requested  {batch.asked}", *queue_lines(batch))
        if lines not in seen:  # most batches of a node go to the same queue
            seen.add(lines)
            yield from lines
    bad = next((task for task in report.failures if task.node == name), None)
    if bad is not None:
        yield f"Next: {command(report, 'explain', quote(bad.name))}"


def _starts(rundir: RunDir, record: RunRecord, task: Task) -> Sequence[JobEnd]:
    """Return how earlier starts of a task's job ended, where its scheduler has started it again."""
    history = Ledger(rundir.ledger).read()
    instances = Instances(history)
    wanted = {task.node: {task.key}}
    place = task.place or find_places(rundir, history, instances, wanted, record).of.get(
        (task.node, task.key)
    )
    if place is None or place.id is None or not (task.status or task.outcome.get("attempt")):
        return ()
    with suppress(SchedulerUnavailable):
        adapter = instances.reach(place.id.instance)
        if isinstance(adapter, TellsStarts):
            return adapter.starts(place.id.spelled, place.submission.time)
    return ()


def explain_task(rundir: RunDir, name: str) -> Iterator[str]:
    """Yield all that is known about one task."""
    node, index = latest_record(rundir).one(name)
    report = make_report(rundir)
    key = node.key(index)
    task = next((t for t in report.tasks if t.node == node.name and t.key == key), None)
    facts: dict[str, Any] = {}
    if task is None:
        outcome = Store(rundir).get(node.name, key)
        task = Task(node.name, node.label(index), key, State.DONE, outcome=outcome)
        facts["result"] = [command(report, "results", quote(node.task(index)))]
    facts["starts"] = _starts(rundir, report.record, task)
    try:
        log = find_log(rundir, name)
    except UsageError:
        log = None
    if log is not None and exists(log.path):
        facts["log"] = log.path
        if task.state.bad:
            facts["tail"] = [line.decode(errors="replace").rstrip() for line in log.tail(_TAIL)]
    if node.folder:
        from hpcpipe.graph.axes import folder_name

        folder = rundir.folder.absolute() / node.name / folder_name(node.axes, index)
        if folder.is_dir():
            facts["files"] = [str(folder)]
    return explain_lines(task, report, facts)
