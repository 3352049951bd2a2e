"""Show which tasks were retried with nobody logged in, which are about to be, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpcpipe.jobs import JobEnd, State
from hpcpipe.quantities import format_time
from hpcpipe.status.report import Report
from hpcpipe.status.state import Task
from hpcpipe.views.text import cut, first_line

if TYPE_CHECKING:
    from hpcpipe.status.attempts import Attempt


def retried(report: Report) -> dict[str, list[Attempt]]:
    """Return the ended attempts of each task that was retried in the queue, by its name."""
    from hpcpipe.status.attempts import ended_attempts

    record = report.record
    return {
        record.nodes[node].task(record.nodes[node].index(key)): ends
        for node, keys in record.attempts.items()
        for key in keys
        if (ends := [e for e in ended_attempts(record, node, key) if e.run >= record.since])
    }


def retry_lines(report: Report, width: int) -> Iterator[str]:
    """Yield how many tasks were retried, and how many are about to be, with the reasons."""
    if report.record.after and report.mending:
        yield cut(f"waiting for the run in {report.record.after} to succeed", width)
    if not report.record.attempts and not report.mending:
        return
    from hpcpipe.status.attempts import bad_nodes

    due = [task for task in report.tasks if task.state is State.WAITING and task.reason]
    ends = [end for some in retried(report).values() for end in some]
    if due:
        yield cut(f"to be retried {len(due)}: {_reasons(str(task.reason) for task in due)}", width)
    if ends:
        took = sum(end.wall or 0 for end in ends)
        after = f", after {format_time(took)} in all" if took >= 1 else ""
        yield cut(f"retried {len(ends)}: {_reasons(end.reason for end in ends)}{after}", width)
    if hosts := bad_nodes(report.record.attempts):
        yield cut(f"nodes left out, as three tasks ended there: {' '.join(hosts)}", width)


def _reasons(reasons: Iterable[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())


def attempt_lines(task: Task, report: Report, starts: Sequence[JobEnd]) -> Iterator[str]:
    """Yield how each earlier attempt of a task ended; and of the last one, how earlier ``starts``
    did, after which the scheduler started its job again."""
    from hpcpipe.status.attempts import ended_attempts

    ends = ended_attempts(report.record, task.node, task.key)
    for number, end in enumerate(ends, 1):
        words = f": {first_line(end.words)}" if end.words else ""
        wall = f" after {format_time(end.wall)}" if end.wall else ""
        host = f" on {end.host}" if end.host else ""
        yield f"  attempt {number}  {end.reason}{words} (job {end.element}{host}{wall})"
    for number, start in enumerate(starts, 1):
        wall = f", after {format_time(start.wall)}" if start.wall else ""
        how = f"{start.native} on {start.host}{wall}"
        yield f"  start {number}    {how}: started again as the same job"
    walls = [one.wall or 0 for one in ends] + [one.wall or 0 for one in starts]
    walls.append(task.outcome.get("wall") or 0)
    if len(walls) > 1 and sum(walls) >= 1:
        often = f"{len(ends) + 1} attempts" if ends else f"{len(walls)} starts"
        yield f"  in all     {format_time(sum(walls))} in {often}"


def attempts_json(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return how the attempts ended that were followed by another, by task."""
    return {name: [end._asdict() for end in ends] for name, ends in retried(report).items()}
