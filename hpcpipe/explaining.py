"""All that is known of one task: its state, its outcome, its log, its files; or of one node."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcpipe.errors import UsageError
from hpcpipe.ledger import Ledger
from hpcpipe.model import State
from hpcpipe.record import read_record
from hpcpipe.run import Run
from hpcpipe.show import explain_lines, queue_lines
from hpcpipe.status import Task

_TAIL = 12  # lines of a log


def find_log(run: Run, name: str) -> Path:
    """Name the log of a task's latest submission; raises UsageError where it has none."""
    node, index = run.record.one(name)
    key = node.key(index)
    history = Ledger(run.rundir.ledger).read()
    for number in sorted({one.run for one in history.submissions.values()}, reverse=True):
        for batch in read_record(run.rundir, number).batches.values():
            if node.name in batch.nodes and bytes.fromhex(key) in batch.keys:
                places = {found: index for _, found, index in batch.tasks()}
                if key in places:
                    return run.rundir.log(batch.id, places[key])
    raise UsageError(f"{name}: was never submitted")


def tail(path: Path, lines: int) -> str:
    """Read the last lines of a log."""
    with path.open(errors="replace") as file:
        return "".join(deque(file, lines))


def explain(run: Run, name: str) -> Iterator[str]:
    """Say all that is known of a task; of a node of many tasks, where they went and why."""
    nodes = run.record.nodes
    return (
        explain_node(run, name) if name in nodes and nodes[name].axes else explain_task(run, name)
    )


def explain_node(run: Run, name: str) -> Iterator[str]:
    """Say of a node how its tasks stand, and of each of its batches to which queue it went."""
    report = run.report()
    node = run.record.nodes[name]
    counts = report.counts[name]
    said = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    yield f"{name}  {len(node)} tasks: {said}"
    asked = {batch.id: batch for batch in run.record.batches.values() if name in batch.nodes}
    if not asked:
        yield "  All of its tasks were good, or submitted before; ask for one of them."
    seen: set[tuple[str, ...]] = set()
    for batch in asked.values():
        lines = (f"  asked      {batch.resources}", *queue_lines(batch))
        if lines not in seen:  # batches of one node mostly go the same way
            seen.add(lines)
            yield from lines
    bad = next((task for task in report.failures if task.node == name), None)
    if bad is not None:
        yield f"Next: hpcpipe explain {bad.name}"


def explain_task(run: Run, name: str) -> Iterator[str]:
    """Say all that is known of a task, in lines."""
    node, index = run.record.one(name)
    report = run.report()
    key = node.key(index)
    task = next((t for t in report.tasks if t.node == node.name and t.key == key), None)
    facts: dict[str, Any] = {}
    if task is None:
        outcome = run.rundir.read_outcome(node.name, key, None)
        task = Task(node.name, node.label(index), key, State.DONE, outcome=outcome)
        facts["result"] = [f"hpcpipe results {node.task(index)}"]
    try:
        log = find_log(run, name)
    except UsageError:
        log = None
    if log is not None and log.exists():
        facts["log"] = log
        if task.state.bad:
            facts["tail"] = tail(log, _TAIL).splitlines()
    if node.folder is not None:
        from hpcpipe.axes import folder_name

        folder = node.folder / folder_name(node.axes, index)
        if folder.is_dir():
            facts["files"] = [str(folder)]
    return explain_lines(task, report, facts)
