"""Reports and tasks as lines of text: the same with colour, without, and piped.

Pure: a report goes in, lines come out. Every line is meant to be acted on; what is suggested can be
pasted as it is.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcpipe.model import Reason, State, format_memory, format_time
from hpcpipe.record import DIRECT, BatchRecord
from hpcpipe.status import BLOCKED_BY, Report, Task

_COLUMNS = (
    ("done", (State.DONE,)),
    ("run", (State.RUNNING,)),
    ("wait", (State.QUEUED, State.HELD, State.WAITING)),
    ("fail", (State.FAILED, State.CANCELLED, State.LOST)),
    ("blocked", (State.BLOCKED,)),
    ("unknown", (State.UNKNOWN,)),
)
_TELLING = (
    Reason.ERROR,
    Reason.EXIT,
    Reason.REFUSED,
    Reason.START,
)  # whose words tell causes apart
_MOST = 8  # lines of one kind before the rest is counted
_WIDE = 78


def verdict(report: Report) -> str:
    """Say how the run stands, in one phrase."""
    total = report.total
    if not report.finished:
        live = sum(count for state, count in total.items() if state.live)
        return f"{live} of {total.total()} tasks still to end"
    if report.failures:
        return f"ended with {len(report.failures)} of {total.total()} tasks not good"
    return f"all {total.total()} tasks are good"


def status_lines(report: Report) -> Iterator[str]:
    """Draw the status screen: a line a node, the failures by cause, and what to type next."""
    record = report.record
    head = f"{record.workflow} (run {record.run})   {verdict(report)}"
    if report.asked:
        head += f"   asked {format_time(max(0, round(time.time() - report.asked)))} ago"
    yield head
    yield from node_table(report)
    if report.trouble:
        yield _cut(f"could not ask {record.scheduler}: {_first_line(report.trouble)}")
    if report.adrift:
        batches = "batch" if report.adrift == 1 else "batches"
        yield f"a submission was interrupted: {report.adrift} {batches} missing, held or in doubt;"
        yield "the same submit command again completes it"
    yield from _causes(report)
    yield from _waiting(report)
    yield from _next(report)


def node_table(report: Report) -> Iterator[str]:
    """One line a node, with the columns that say anything."""
    total = report.total
    shown = [
        (title, states)
        for title, states in _COLUMNS
        if title in ("done", "fail") or any(total[state] for state in states)
    ]
    width = max([4, *(len(name) for name in report.counts)])
    yield "  ".join(["node".ljust(width), "   all", *(f"{title:>7}" for title, _ in shown)])
    for name, counts in report.counts.items():
        cells = [f"{sum(counts[state] for state in states):>7}" for _, states in shown]
        yield "  ".join([name.ljust(width), f"{counts.total():>6}", *cells])


def _causes(report: Report) -> Iterator[str]:
    """List failures by cause: the tasks' own, most first, then what follows from them."""
    by_cause: dict[tuple[Reason | None, str, str], list[Task]] = defaultdict(list)
    for task in report.failures:
        words = _first_line(task.words) if task.reason in _TELLING else ""
        node = "" if task.reason is Reason.REFUSED else task.node  # those are refused together
        by_cause[task.reason, node, words].append(task)
    own = [cause for cause in by_cause if cause[0] is not Reason.UPSTREAM]
    own.sort(key=lambda cause: -len(by_cause[cause]))
    shown = own[:_MOST] + [cause for cause in by_cause if cause[0] is Reason.UPSTREAM][:_MOST]
    for position, cause in enumerate(shown):
        yield from _cause("   " if position else "why", by_cause[cause])
    if len(own) > _MOST:
        rest = sum(len(by_cause[cause]) for cause in own[_MOST:])
        yield f"    {rest:>3}  of {len(own) - _MOST} more causes: hpcpipe status --json"


def _cause(lead: str, tasks: Sequence[Task]) -> Iterator[str]:
    """Say one cause: how many tasks have it, which, and the first one's words."""
    reason, node, words = tasks[0].reason, tasks[0].node, _first_line(tasks[0].words)
    said = f"{lead} {len(tasks):>3}  {reason}"
    if reason is Reason.REFUSED:
        yield said
        yield _cut(f"         {words}")
        return
    labels = " ".join(task.label or task.node for task in tasks[:3])
    more = " …" if len(tasks) > 3 else ""
    quoted = f'  "{words}"' if words and reason is not Reason.UPSTREAM else ""
    yield _cut(f"{said}  {node}: {labels}{more}{quoted}")


def _waiting(report: Report) -> Iterator[str]:
    """Say why tasks wait, where the scheduler gave a reason."""
    whys = Counter(
        t.words for t in report.tasks if t.state in (State.QUEUED, State.HELD) and t.words
    )
    for why, count in whys.most_common()[:3]:  # with a number it would import heapq
        yield f"waiting {count}: {_PLAIN.get(why, why)}"


_PLAIN = {
    "Priority": "others are before you in the queue",
    "Resources": "the queue has no room yet",
    "Dependency": "for the tasks before them",
    "JobHeldUser": "held; the submission was interrupted, or somebody held them",
    "JobHeldAdmin": "held by an administrator",
    "PartitionTimeLimit": "the time asked is over the queue's limit: they will never start",
    "AssocGrpCpuLimit": "your account's limit of cpus is reached",
    "QOSMaxJobsPerUserLimit": "your limit of running jobs is reached",
    "ReqNodeNotAvail": "the nodes they need are down or reserved",
}


_CALL_AGAIN = "make the calls again from Python, under the same name: only what is missing runs"


def _next(report: Report) -> Iterator[str]:
    """Suggest what to type, each line as it can be pasted."""
    for task in report.failures:
        if task.reason is Reason.REFUSED and task.place:
            yield f"Next: hpcpipe retry {task.place.submission.hint}".rstrip()
            return
    own = [t for t in report.failures if t.reason is not Reason.UPSTREAM]
    if own:
        telling = next((t for t in own if t.reason in (Reason.ERROR, Reason.EXIT)), own[0])
        yield f"Next: hpcpipe explain {telling.name}"
    if report.failures and DIRECT in report.record.source:
        yield f"{'     ' if own else 'Next:'} {_CALL_AGAIN}"
    elif report.failures and report.finished:
        lead = "     " if own else "Next:"
        count = len(report.failures)
        tasks = "1 task" if count == 1 else f"{count} tasks"
        yield f"{lead} hpcpipe retry            would run {tasks} again"
    elif report.finished and not report.failures:
        last = list(report.record.nodes.values())[-1]
        returns = "map" not in report.record.source  # its commands return nothing, but may print
        yield f"Next: hpcpipe {f'results {last.name}' if returns else f'logs {last.task(0)}'}"


def change_lines(before: Report | None, after: Report) -> Iterator[str]:
    """For a pipe: a line for every node that came a tenth further or changed its kind of trouble,
    and one for every new cause of failure. A run of any size has a page of them."""
    for name, counts in after.counts.items():
        if before is None or _stage(before.counts.get(name)) != _stage(counts):
            said = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
            yield f"{name}: {said}"
    known = {(t.reason, t.node) for t in before.failures} if before else set()
    for task in after.failures:
        if (task.reason, task.node) not in known:
            known.add((task.reason, task.node))
            yield _cut(f"{task.name}: {task.reason}: {_first_line(task.words)}")


def _stage(counts: Counter[State] | None) -> tuple[int, ...]:
    """How far a node is: tenths done, whether anything started, failed, or may still change."""
    if counts is None:
        return ()
    started = counts[State.RUNNING] + counts[State.DONE] > 0
    bad = any(counts[state] for state in State if state.bad)
    live = any(counts[state] for state in State if state.live)
    return (10 * counts[State.DONE] // max(1, counts.total()), started, bad, live)


def explain_lines(task: Task, report: Report, facts: Mapping[str, Any]) -> Iterator[str]:
    """Say all that is known of one task; ``facts`` has its log's tail, inputs and files."""
    place, outcome = task.place, task.outcome or facts.get("outcome", {})
    reason = f"  {task.reason}" if task.reason else ""
    yield f"{task.name}  {task.state.upper()}{reason}"
    if task.words:
        yield f"  why        {task.words}"
    if place is not None:
        attempt = f", attempt {place.attempt}" if place.attempt > 1 else ""
        yield f"  asked      {place.batch.asked}{attempt}"
        job = f"job {place.element}" if place.element else "no job id"
        host = outcome.get("host") or (task.end.host if task.end else "")
        yield f"  where      {report.record.scheduler} {job}" + (f" on {host}" if host else "")
        yield from queue_lines(place.batch)
    used = _used(outcome, task)
    if used:
        yield f"  used       {used}"
    same = [t for t in report.failures if t.node == task.node]
    if task.state.bad:
        good = report.counts[task.node][State.DONE]
        yield f"  others     {good} of this node are good, {len(same)} are not"
    for title in ("inputs", "files", "result"):
        for line in facts.get(title, ()):
            yield f"  {title:<10} {line}"
    tail: Sequence[str] = facts.get("tail", ())
    for line in tail:
        yield f"  last lines | {line}"
    if facts.get("log"):
        yield f"  log        hpcpipe logs {task.name}"
    if task.state.bad and DIRECT in report.record.source:
        ran_out = task.reason in (Reason.MEMORY, Reason.TIME)
        first = "Ask for more of what it ran out of" if ran_out else "Mend the cause"
        yield f"{first}, then {_CALL_AGAIN}"
    elif task.state.bad:
        yield _remedy(task)


def queue_lines(batch: BatchRecord) -> Iterator[str]:
    """Say why a batch went to its queue, and why to none of the others."""
    if batch.queue:
        yield f"  queue      {batch.why}"
    for other in batch.others:
        yield f"  not        {other}"
    if batch.software:
        yield f"  software   {', '.join(batch.software)}"


def _remedy(task: Task) -> str:
    """Say what to do about one task."""
    if task.reason is Reason.UPSTREAM and task.words.startswith(BLOCKED_BY):
        return f"Next: hpcpipe explain {task.words.removeprefix(BLOCKED_BY)}"
    if task.reason in (Reason.MEMORY, Reason.TIME):
        return "Next: hpcpipe retry            asks for more of what it ran out of"
    if task.reason in (Reason.NODE, Reason.CANCELLED, Reason.LOST):
        return "Next: hpcpipe retry"
    return "Mend the cause, then: hpcpipe retry"


def _used(outcome: Mapping[str, Any], task: Task) -> str:
    words = []
    if outcome.get("max_memory"):
        words.append(format_memory(max(1, outcome["max_memory"] // 1024)))
    elif task.end and task.end.max_memory:
        words.append(f"{format_memory(task.end.max_memory)} (by accounting)")
    if outcome.get("wall") is not None:
        words.append(format_time(outcome["wall"]))
    if outcome.get("cpu") is not None:
        words.append(f"{format_time(outcome['cpu'])} of cpu")
    return ", ".join(words)


def report_json(report: Report, log: Any) -> dict[str, Any]:
    """Give the report as JSON can hold it; ``log`` names a task's log."""
    return {
        "workflow": report.record.workflow,
        "run": report.record.run,
        "scheduler": report.record.scheduler,
        "site": report.record.site.rpartition("/")[2].removesuffix(".toml"),
        "finished": report.finished,
        "verdict": verdict(report),
        "trouble": report.trouble or None,
        "interrupted": report.adrift,
        "nodes": {
            name: {"all": counts.total(), **{str(s): counts[s] for s in State if counts[s]}}
            for name, counts in report.counts.items()
        },
        "failures": [_failure_json(task, log) for task in report.failures],
    }


def _failure_json(task: Task, log: Any) -> dict[str, Any]:
    place = task.place
    end = task.end
    return {
        "task": task.name,
        "node": task.node,
        "label": task.label,
        "state": str(task.state),
        "reason": str(task.reason) if task.reason else None,
        "error": task.words,
        "exit": task.outcome.get("exit", end.exit_code if end else None),
        "signal": task.outcome.get("signal", end.signal if end else None),
        "native": end.native if end else None,
        "host": task.outcome.get("host") or (end.host if end else None),
        "attempt": place.attempt if place else 0,
        "job_id": place.element if place else None,
        "log": log(task),
    }


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else ""


def _cut(line: str) -> str:
    return line if len(line) <= _WIDE else line[: _WIDE - 1] + "…"
