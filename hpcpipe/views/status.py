"""Render reports and tasks as lines of text.

Pure: a report goes in, lines come out. Suggested commands can be pasted as they are.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from hpcpipe.jobs import Reason, State
from hpcpipe.quantities import counted, format_bytes, format_memory, format_time
from hpcpipe.status.report import Report
from hpcpipe.status.state import BLOCKED_BY, Task
from hpcpipe.store.recent import suggested
from hpcpipe.store.record import BatchRecord
from hpcpipe.views.retries import attempt_lines, attempts_json, retry_lines
from hpcpipe.views.table import node_table
from hpcpipe.views.text import USUAL, Size, cut, first_line

if TYPE_CHECKING:
    from hpcpipe.status.most import Most
    from hpcpipe.store.usage import Usage

# For these reasons the message names the cause; for the others it differs between tasks (host,
# memory used), and would split one cause into many.
_MOST = 8  # causes listed, so that a screen fits 24 lines
_MOST_PARTIAL = 3  # tasks listed that went on without others
_MOST_BLOCKED = 2  # nodes of which blocked tasks are listed
MANY_FILES = 10_000  # of a run: quotas on home folders allow some 100,000 in all
_ROWS = 2  # lines that the table of nodes has at least


def verdict(report: Report, left_out: Sequence[str] = ()) -> str:
    """Return the state of the run in one phrase.

    ``left_out`` are tasks of earlier plans that failed and are not in the latest one.
    """
    total = report.total
    count = total.total()
    tasks = f"{count} task{'s' * (count != 1)}"
    if not report.finished:
        live = sum(n for state, n in total.items() if state.live)
        return f"{live} of {tasks} still to end" + ", and more to come" * bool(report.awaited)
    if report.failures:
        were = "was" if len(report.failures) == 1 else "were"
        ends = f"{were} cancelled" if _only_cancelled(total) else "failed"
        blocked = f" or {were} blocked" if total[State.BLOCKED] else ""
        of = "its only task" if count == 1 else f"{len(report.failures)} of {tasks}"
        return f"finished: {of} {ends}{blocked}"
    if report.awaited:
        return f"stopped: {tasks} succeeded, and those that follow were not submitted"
    if left_out:
        return f"finished: {tasks} succeeded; {len(left_out)} of an earlier plan had failed"
    return f"finished: {'all ' * (count > 1)}{tasks} succeeded"


def verdict_word(report: Report) -> str:
    """Return the state of a run that has ended in one word, of which a job's name can consist."""
    if report.failures:
        return "cancelled" if _only_cancelled(report.total) else "failed"
    return "succeeded" if report.finished and not report.awaited else "stopped"


def _only_cancelled(total: Counter[State]) -> bool:
    return not (total[State.FAILED] or total[State.LOST]) and total[State.CANCELLED] > 0


def status_lines(
    report: Report,
    left_out: Sequence[str] = (),
    size: Size = USUAL,
    *,
    bars: bool = False,
    whole: bool = False,
    usage: Usage | None = None,
) -> Iterator[str]:
    """Yield the status screen: one line per node, the failures by cause, and the next command.

    Nodes are folded where the screen would be higher than ``size``, unless it is to be ``whole``.
    ``usage`` is shown if it is much.
    """
    record, width = report.record, size.width
    head = f"{record.workflow} (run {record.run})   {verdict(report, left_out)}"
    if report.asked:
        head += f"   asked {format_time(max(0, round(time.time() - report.asked)))} ago"
    rest = [*_below(report, left_out, width, usage)]
    yield cut(head, size.columns)
    most = max(_ROWS, size.lines - len(rest) - 3)  # two heads, and the prompt below
    most = len(report.counts) if whole else most
    unknown = [name for name, node in record.nodes.items() if node.awaited]
    yield from node_table(report.counts, width, most, bars=bars, unknown=unknown)
    yield from rest


def _below(
    report: Report, left_out: Sequence[str], width: int, usage: Usage | None
) -> Iterator[str]:
    """Yield what is below the table of nodes."""
    for task in report.unreached[:1]:
        words = f"could not ask {_scheduler(task, report)}: {first_line(task.words)}"
        yield cut(words, width)
    if report.adrift:
        batches = "batch" if report.adrift == 1 else "batches"
        yield f"a submission was interrupted: {report.adrift} {batches} missing, held or uncertain;"
        yield "run the same submit command again to complete it"
    yield from _causes(report, width)
    yield from _partial_lines(report, width)
    yield from _waiting(report, width)
    for why, nodes in _awaited(report).items():
        yield cut(f"{why}: {' '.join(nodes)}", width)
    yield from retry_lines(report, width)
    yield from left_out_lines(left_out, width)
    if usage and usage.cut_logs:
        logs = "1 log was" if len(usage.cut_logs) == 1 else f"{len(usage.cut_logs)} logs were"
        names = " ".join(usage.cut_logs[:3]) + " …" * (len(usage.cut_logs) > 3)
        yield cut(f"{logs} over the site's limit and lost the middle: {names}", width)
    if usage and usage.files >= MANY_FILES:
        yield f"on disk: {usage_words(usage)} in .hpcpipe; see hpcpipe clean"
    yield from _next(report)


def usage_words(usage: Usage) -> str:
    """Return files and bytes in words."""
    size = format_bytes(usage.bytes)
    return f"{usage.files:,} files, {size if usage.exact else f'about {size}'}"


def _partial_lines(report: Report, width: int) -> Iterator[str]:
    """Name the tasks that succeeded without some of those upstream."""
    for task in report.partial[:_MOST_PARTIAL]:
        count = len(task.outcome.get("missing", ()))
        yield cut(f"{task.name} succeeded without {counted(count, 'task')}: {task.missing}", width)
    if (more := len(report.partial) - _MOST_PARTIAL) > 0:
        yield f"{more} more went on without some: {command(report, 'status', '--json')}"


def _causes(report: Report, width: int) -> Iterator[str]:
    """Yield failures by cause: the tasks' own, most frequent first, then blocked tasks."""
    by_cause: dict[tuple[Reason | None, str, str], list[Task]] = defaultdict(list)
    blocked: dict[str, list[Task]] = defaultdict(list)
    for task in report.failures:
        words = first_line(task.words) if task.reason and task.reason.about.varied else ""
        if task.reason is Reason.START:  # one cause, though each names its own log, job and host
            words = re.sub(r"\d+", "", words.partition(" (log: ")[0])
        node = "" if task.reason is Reason.REFUSED else task.node  # one refusal covers all nodes
        if task.reason is Reason.UPSTREAM:
            blocked[task.node].append(task)
        else:
            by_cause[task.reason, node, words].append(task)
    own = sorted(by_cause.values(), key=len, reverse=True)
    first = {tasks[0].reason: tasks for tasks in reversed(own)}  # each is shown
    own.sort(key=lambda tasks: tasks is not first[tasks[0].reason])
    lead = "why"
    for tasks in (*own[:_MOST], *(blocked.values() if len(blocked) <= _MOST_BLOCKED else ())):
        yield from _cause(lead, tasks, width)
        lead = "   "
    if len(own) > _MOST:
        rest = sum(map(len, own[_MOST:]))
        all_ = command(report, "status", "--json")
        yield f"    {rest:>3}  of {len(own) - _MOST} more causes: {all_}"
    if len(blocked) > _MOST_BLOCKED:
        count, names = sum(map(len, blocked.values())), " ".join([*blocked][:5])
        yield cut(f"{lead} {count:>3}  {Reason.UPSTREAM}  {len(blocked)} nodes: {names} …", width)


def _cause(lead: str, tasks: Sequence[Task], width: int) -> Iterator[str]:
    """Yield one cause: how many tasks it has, which ones, and the first task's message."""
    reason, node, words = tasks[0].reason, tasks[0].node, first_line(tasks[0].words)
    said = f"{lead} {len(tasks):>3}  {reason}"
    if reason is Reason.REFUSED:
        yield said
        yield cut(f"         {words}", width)
        return
    labels = " ".join(task.label or task.node for task in tasks[:3])
    more = " …" if len(tasks) > 3 else ""
    quoted = f'  "{words}"' if words and reason is not Reason.UPSTREAM else ""
    yield cut(f"{said}  {node}: {labels}{more}{quoted}", width)


def _awaited(report: Report) -> dict[str, list[str]]:
    """Group the nodes of which it is not known how many tasks they have, by the reason."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, node in report.record.nodes.items():
        if upstream := report.awaited.get(name):
            groups[f"width known when {' and '.join(upstream)} has ended"].append(name)
        elif node.awaited:
            groups[f"width unknown, as {' and '.join(dict(node.awaited))} failed"].append(name)
    return groups


def _waiting(report: Report, width: int) -> Iterator[str]:
    """Yield why tasks wait, where the scheduler gave a reason."""
    for why, count in _whys(report).most_common()[:3]:  # most_common(3) would import heapq
        yield _wait(why, count, width)


def _whys(report: Report) -> Counter[str]:
    """Count the scheduler's reasons why tasks wait."""
    waiting = (t for t in report.tasks if t.state in (State.QUEUED, State.HELD))
    return Counter(task.words for task in waiting if task.words)


def _wait(why: str, count: int, width: int) -> str:
    plain = _PLAIN.get(why.partition(",")[0])  # Slurm adds the nodes that are not available
    return cut(f"waiting {count}: {plain or first_line(why)}", width)


def _stalled(report: Report) -> Counter[str]:
    """Count the reasons why tasks wait that others must remove, while nothing else happens."""
    if report.finished or report.total[State.RUNNING]:
        return Counter()
    return Counter({why: n for why, n in _whys(report).items() if why not in _USUAL_WAITS})


_PLAIN = {
    "Priority": "other jobs are ahead of them in the queue",
    "Resources": "no free resources in the queue yet",
    "Dependency": "for upstream tasks",
    "JobHeldUser": "held by hand, or by an interrupted submission",
    "JobHeldAdmin": "held by an administrator",
    "AssocGrpCpuLimit": "your account has reached its limit of cpus",
    "QOSMaxJobsPerUserLimit": "you have reached your limit of running jobs",
    "AssocMaxJobsLimit": "your account has reached its limit of running jobs",
    "ReqNodeNotAvail": "the nodes they need are down or reserved",
    "PartitionNodeLimit": "the nodes they need are down, or they need more than the queue gives",
    "PartitionDown": "the queue is closed",
    "PartitionInactive": "the queue is closed",
}
_USUAL_WAITS = ("Priority", "Resources", "Dependency", "JobHeldUser", "BeginTime")


def left_out_lines(names: Sequence[str], width: int = USUAL.width) -> Iterator[str]:
    """Name the tasks of earlier plans that failed and are not in the latest one."""
    if names:
        some = " ".join(names[:5]) + " …" * (len(names) > 5)
        yield cut(f"failed before, and not in this plan: {some}", width)


def _next(report: Report) -> Iterator[str]:
    """Yield the commands to type next."""
    for task in report.failures:
        if task.reason is Reason.REFUSED and task.place:
            yield f"Next: {command(report, 'retry', task.place.submission.hint)}"
            return
    own = [t for t in report.failures if t.reason is not Reason.UPSTREAM]
    if own:
        telling = next((t for t in own if t.reason in (Reason.ERROR, Reason.EXIT)), own[0])
        yield f"Next: {command(report, 'explain', quote(telling.name))}"
    if report.failures and report.finished:
        lead = "     " if own else "Next:"
        if most := report.most(own):
            yield f"{lead} {_repeated(most, report)}"
            return
        count = len(report.failures) + len(report.partial)
        tasks = "1 task" if count == 1 else f"{count} tasks"
        yield f"{lead} {command(report, 'retry')}            runs {tasks} again"
    elif report.finished and not report.failures and report.awaited:
        yield f"Next: {command(report, 'retry')}            submits them"
    elif report.finished and not report.failures:
        last = list(report.record.nodes.values())[-1]
        returns = "map" not in report.record.source  # commands print; they return nothing
        words = ("results", last.name) if returns else ("logs", quote(last.task(0)))
        yield f"Next: {command(report, *words)}"
    elif not own and _stalled(report):
        yield f"Next: {command(report, 'cancel')}            if it cannot wait until that is over"


def _repeated(most: Most, report: Report) -> str:
    """Return the command that repeats a task which already had the most of something."""
    amount = f"{most.had}{'s' if most.what == 'time' else 'M'}"
    again = command(report, "retry", f"--{most.what} {amount}")
    return f"{again}            once it needs less: no queue gives more"


def command(report: Report, *words: str) -> str:
    """Return a command about the run of a report, as it can be typed in this folder."""
    return suggested(report.folder, *words)


def change_lines(before: Report | None, after: Report) -> Iterator[str]:
    """Yield the changes between two reports, for a pipe.

    One line for each node that advanced by a tenth or changed its kind of trouble, and one for each
    new cause of failure: a page in all, whatever the size of the run.
    """
    for name, counts in after.counts.items():
        unknown = not counts and after.record.nodes[name].awaited
        if not unknown and (before is None or _stage(before.counts.get(name)) != _stage(counts)):
            yield f"{name}: {counted_states(counts) or 'no tasks'}"
    stalled, known_waits = _stalled(after), _stalled(before) if before else {}
    for why in stalled.keys() - known_waits:
        yield _wait(why, stalled[why], USUAL.width)
    known = {(t.reason, t.node) for t in before.failures} if before else set()
    for task in after.failures:
        if (task.reason, task.node) not in known:
            known.add((task.reason, task.node))
            yield cut(f"{task.name}: {task.reason}: {first_line(task.words)}", USUAL.width)


def counted_states(counts: Counter[State]) -> str:
    """Return how many tasks are in each state: ``2 running, 41 succeeded``."""
    return ", ".join(f"{counts[state]} {_in_words(state)}" for state in State if counts[state])


def _in_words(state: State) -> str:
    return "succeeded" if state is State.DONE else str(state)


def _stage(counts: Counter[State] | None) -> tuple[int, ...]:
    """Return a node's progress: tenths done; whether anything started, failed, or is unfinished."""
    if counts is None:
        return ()
    started = counts[State.RUNNING] + counts[State.DONE] > 0
    bad = any(counts[state] for state in State if state.bad)
    live = any(counts[state] for state in State if state.live)
    return (10 * counts[State.DONE] // max(1, counts.total()), started, bad, live)


def explain_lines(task: Task, report: Report, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield all that is known about one task; ``facts`` has its log's tail, inputs and files."""
    place, outcome = task.place, task.outcome or facts.get("outcome", {})
    reason = f"  {task.reason}" if task.reason else ""
    yield f"{task.name}  {_in_words(task.state).upper()}{reason}"
    if task.words:
        title, words = ("without", task.missing) if task.missing else ("why", task.words)
        yield f"  {title:<10} {' '.join(words.splitlines())}"
    if place is not None:
        attempt = f", attempt {place.attempt}" if place.attempt > 1 else ""
        yield f"  requested  {place.batch.asked}{attempt}"
        job = f"job {place.element}" if place.element else "no job id"
        host = outcome.get("host") or (task.end.host if task.end else "")
        yield f"  where      {_scheduler(task, report)} {job}" + (f" on {host}" if host else "")
        yield from queue_lines(place.batch)
    yield from attempt_lines(task, report, facts.get("starts", ()))
    used = _used(outcome, task)
    if used:
        yield f"  used       {used}"
    if task.state.bad:
        done, count = report.counts[task.node][State.DONE], report.counts[task.node].total()
        rest = sum(other.node == task.node for other in report.failures)
        tasks = "task" if count == 1 else "tasks"
        yield f"  node       {done} of {count} {tasks} succeeded, {rest} did not"
    for title in ("inputs", "files", "result"):
        for line in facts.get(title, ()):
            yield f"  {title:<10} {line}"
    tail: Sequence[str] = facts.get("tail", ())
    for line in tail:
        yield f"  last lines | {line}"
    if facts.get("log"):
        yield f"  log        {command(report, 'logs', quote(task.name))}"
    if task.state.bad:
        yield _remedy(task, report)


def _scheduler(task: Task, report: Report) -> str:
    """Name the scheduler that has a task's job, which may not be that of the latest submission."""
    instance = task.place.id.instance if task.place and task.place.id else ""
    return instance.partition(":")[0] or report.record.scheduler


def queue_lines(batch: BatchRecord) -> Iterator[str]:
    """Yield why a batch went to its queue, and why not to each of the others."""
    if batch.queue:
        yield f"  queue      {batch.why}"
    for other in batch.others:
        yield f"  not        {other}"
    if batch.software:
        yield f"  software   {', '.join(batch.software)}"


def _remedy(task: Task, report: Report) -> str:
    """Return what to do about one task."""
    if task.reason is Reason.UPSTREAM and task.words.startswith(BLOCKED_BY):
        upstream = quote(task.words.removeprefix(BLOCKED_BY))
        return f"Next: {command(report, 'explain', upstream)}"
    if most := report.most([task]):
        return f"Next: {_repeated(most, report)}"
    remedy = task.reason.about.remedy if task.reason else "Next: {retry}"
    fresh = command(report, "status", "--fresh")
    hint = task.place.submission.hint if task.place and task.reason is Reason.REFUSED else ""
    return remedy.format(retry=command(report, "retry", hint), status=fresh)


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


def report_json(
    report: Report, log: Any, left_out: Sequence[str] = (), usage: Usage | None = None
) -> dict[str, Any]:
    """Return the report as plain JSON values; ``log`` returns the path of a task's log."""
    return {
        "workflow": report.record.workflow,
        "run": report.record.run,
        "scheduler": report.record.scheduler,
        "site": report.record.site.rpartition("/")[2].removesuffix(".toml"),
        "finished": report.finished,
        "verdict": verdict(report, left_out),
        "left_out": [*left_out],
        "trouble": report.trouble or None,
        "interrupted": report.adrift,
        "files": usage.files if usage else None,
        "bytes": usage.bytes if usage else None,
        "cut_logs": [*usage.cut_logs] if usage else [],
        "nodes": {
            name: {"all": counts.total(), **{str(s): counts[s] for s in State if counts[s]}}
            for name, counts in report.counts.items()
        },
        "awaited": {name: [*nodes] for name, nodes in report.awaited.items()},
        "partial": [{"task": t.name, "without": t.missing.split()} for t in report.partial],
        "failures": [_failure_json(task, log) for task in report.failures],
        "retried": attempts_json(report),
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
