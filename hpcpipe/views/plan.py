"""Render a draft as text or JSON: what would be submitted, and why the rest would not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hpcpipe.graph.axes import label
from hpcpipe.indices import fold
from hpcpipe.jobs import Reason, State
from hpcpipe.keys.fates import DONE, IN_FLIGHT, LATER, RUN
from hpcpipe.keys.plan import NodePlan
from hpcpipe.planner.batch import Batch, InFlightJob, Wait
from hpcpipe.planner.predict import Prediction, predict, trade
from hpcpipe.quantities import counted, format_time
from hpcpipe.schedulers.base import shown
from hpcpipe.store.plan import NodeRecord
from hpcpipe.store.recent import run_option
from hpcpipe.submit.budget import bill_line, over_budget, pace_line
from hpcpipe.submit.continuation import can_continue, growing, is_wanted, may_retry
from hpcpipe.submit.mail import address, is_mail
from hpcpipe.submit.prepare import Draft, Prepared, running_stale, some
from hpcpipe.submit.run_times import run_times
from hpcpipe.views.keys import change_lines
from hpcpipe.views.status import MANY_FILES

_FATES = ((RUN, "to run"), (DONE, "done"), (IN_FLIGHT, "in flight"), (LATER, "left for later"))
_MOST = 4  # lines about results that are made again
_BASES = {
    "known": "from known run times",
    "asked": "if each task takes all the time it requests",
    "equal": "if each task takes one second: no run times are known",
}


def prediction(draft: Draft, cores: int | None = None) -> Prediction:
    """Predict the course of a draft on ``cores``, by default as many as the site offers."""
    return predict(
        draft.plan,
        [prepared.batch for prepared in draft.prepared],
        draft.scheduler.capabilities,
        run_times(draft.plan, draft.rundir, draft.history),
        cores or draft.site.limits.cores,
    )


def plan_lines(
    draft: Draft, site_why: str, cores: int | None = None, *, others: bool = False
) -> Iterator[str]:
    """Yield a plan as text: nodes, batches and their dependencies, queues and reasons.

    With ``cores``, also a prediction; with ``others``, also why each other queue was not chosen.
    """
    plan, scheduler = draft.plan, draft.site.scheduler
    yield f"{plan.frozen.workflow}: {_counted(draft)}"
    yield f"site {draft.site.name} ({scheduler}): {site_why}"
    width = max(len(name) for name in plan.nodes)
    for name, node in plan.nodes.items():
        said = [f"{node.fates.count(fate)} {words}" for fate, words in _FATES if fate in node.fates]
        yield f"  {name:<{width}}  {axes_of(node.node)}: {', '.join([*said, *_awaited(node.node)])}"
    yield from change_lines(plan, draft.rundir)
    yield from _made_again(draft)
    yield from _why_later(draft)
    if running := running_stale(draft.standing):
        yield f"Running, of an earlier version: {some(running)}. Submitting needs --replace."
    if not draft.prepared:
        yield "Nothing to submit."
        return
    yield f"{draft.calls} submit command{'s' * (draft.calls != 1)}:"
    for number, prepared in enumerate(draft.prepared):
        batch = prepared.batch
        yield f"  [{number}] {prepared.id}: {kind_of(batch)}, each {prepared.route.resources}"
        if batch.waits:
            lenient = ", without those that fail" if batch.lenient else ""
            yield f"      after {'; '.join(map(_describe_wait, batch.waits))}{lenient}"
        if prepared.route.queue:
            yield f"      queue: {prepared.route.why}"
        for other in prepared.route.others if others else ():
            yield f"        not {other}"
        if prepared.route.software:
            yield f"      software: {', '.join(prepared.route.software)}"
    if (files := draft.files) >= MANY_FILES:
        yield f"It will leave some {files:,} files in {draft.rundir.home}."
    yield from _promises(draft)
    yield from _costs(draft)
    yield from _expected(draft, cores)


def axes_of(node: NodeRecord) -> str:
    """Name the axes of a node, and how many places there are on each, or in all of them."""
    axes = [(axis.name, str(len(axis))) for axis in node.axes]
    if node.growth and node.awaited and not len(node):
        axes = [
            (axis.name, "?" if axis.source else str(len(axis.labels))) for axis in node.growth.axes
        ]
    elif node.growth and len(node.growth.axes) != len(axes):
        return f"{' x '.join(axis.name for axis in node.growth.axes)} ({len(node)})"
    return " x ".join(f"{name}({size})" for name, size in axes) or "one task"


def _awaited(node: NodeRecord) -> Iterator[str]:
    """Yield which result decides how many tasks a node has, while that is unknown."""
    if node.awaited:
        wide = node.growth and any(axis.source for axis in node.growth.axes)
        what = "the rest " if len(node) else "width " if wide else ""
        yield f"{what}known when {' and '.join(dict(node.awaited))} has ended"


def kind_of(batch: Batch) -> str:
    """Describe a batch: its elements, and how its tasks share them."""
    kind = f"array of {batch.elements}" if batch.indices is not None else "1 job"
    if batch.starts is None:
        return kind
    said = f"{kind}, {len(batch.tasks)} task{'s' * (len(batch.tasks) != 1)}"
    if batch.lanes > 1:
        said += f", up to {batch.lanes} side by side"
    return said if batch.turns == 1 else f"{said}, up to {batch.turns} in sequence"


def _expected(draft: Draft, cores: int | None) -> Iterator[str]:
    """Yield the predicted makespan, and the predicted cost of relaxed dependencies."""
    relaxed = sum(wait.relaxed for one in draft.prepared for wait in one.batch.waits)
    if cores is None and not relaxed:
        return
    told = prediction(draft, cores)
    if cores is not None:
        hours = told.core_seconds / 3600
        yield (
            f"On {cores} cores: {format_time(told.makespan)}, {hours:.1f} core-hours, "
            f"{told.used:.0%} of the cores in use ({_BASES[told.basis]})."
        )
    if relaxed:
        waits = "dependency waits" if relaxed == 1 else "dependencies wait"
        cost = "" if told.cost is None else f": about {max(told.cost, 0):.1%} longer"
        yield f"Relaxed: {relaxed} {waits} for more than needed{cost} on {told.cores} cores."
        if (told.cost or 0) > draft.limits.slack:
            yield from _traded(draft, told.cores)


def _traded(draft: Draft, cores: int) -> Iterator[str]:
    """Print what other numbers of calls would come to, where exactness takes too many."""
    seconds = run_times(draft.plan, draft.rundir, draft.history)
    can = draft.scheduler.capabilities
    for most, calls, makespan in trade(draft.plan, can, draft.limits, seconds, cores):
        yield f"  --calls {most:<3}  {calls:>3} calls, {format_time(makespan)}"


def _costs(draft: Draft) -> Iterator[str]:
    """Yield the cost at worst, and where it exceeds a budget; the local machine is free."""
    if draft.site.scheduler == "local" and not draft.site.accounts:
        return
    yield from filter(None, (bill_line(draft.bill, draft.site), pace_line(draft.calls, draft.site)))
    for line in over_budget(draft.routed, draft.site):
        yield f"Over budget: {line}. Submitting needs --over-budget."


def _promises(draft: Draft) -> Iterator[str]:
    """Yield what is done in the queue later: windows, retries, and what follows a list."""
    if draft.windows > 1:
        yield (
            f"The site takes no more jobs at a time: the rest goes in some {draft.windows - 1} "
            "windows, each submitted in the queue when there is room."
        )
    if may_retry(draft) and is_wanted(draft):
        yield "What fails is retried in the queue, by two small jobs that wait for the others."
    elif may_retry(draft):
        yield (
            "Compute nodes here may not submit jobs: what fails is retried while hpcpipe watch "
            "runs, or by hpcpipe retry."
        )
    yield from _grows(draft)
    yield from _told(draft)


def _grows(draft: Draft) -> Iterator[str]:
    """Yield what is submitted once a task has returned the list that it is mapped over."""
    for name, others in growing(draft).items():
        if can_continue(draft.site, draft.scheduler):
            yield f"Once {name} has ended, two small jobs in the queue see to {some(others)}."
        else:
            yield (
                f"Compute nodes here may not submit jobs: once {name} has ended, {some(others)} "
                f"{'is' if len(others) == 1 else 'are'} submitted while hpcpipe watch runs, "
                "or by hpcpipe retry."
            )


def _told(draft: Draft) -> Iterator[str]:
    """Yield how the end of the run will be announced, or that it cannot be."""
    if not (draft.notify and draft.prepared):
        return
    if not is_wanted(draft):
        yield "Compute nodes here may not submit jobs: no notice is sent at its end (--notify)."
    elif is_mail(draft.notify):
        yield f"When it has ended, the scheduler mails {address(draft.notify) or 'you'}."
    else:
        yield f"When it has ended, a small job runs: {draft.notify}"


def _describe_wait(wait: Wait) -> str:
    on = f"[{wait.on}]" if isinstance(wait.on, int) else f"job {shown(wait.on.job)} (in flight)"
    if wait.kind == "each":
        return f"each element of {on}"
    if wait.element is not None:
        return f"element {wait.element} of {on}"
    return f"all of {on}" + (" (relaxed: more than needed)" if wait.relaxed else "")


def _counted(draft: Draft) -> str:
    run = draft.plan.count(RUN)
    said = [f"{run} task{'s' * (run != 1)} to run"]
    counts = ((draft.plan.count(fate), words) for fate, words in _FATES if fate != RUN)
    return ", ".join([*said, *(f"{count} {words}" for count, words in counts if count)])


def _made_again(draft: Draft) -> Iterator[str]:
    """Yield which results do not count any more, and why."""
    lost = (Reason.DAMAGED, Reason.GONE, Reason.CHANGED)
    found = [one for one in draft.standing.tasks.values() if one.reason in lost]
    if found:
        yield "Made again, since the result is not what it was:"
    for task in found[:_MOST]:
        yield f"  {task.name}: {task.words}"
    if len(found) > _MOST:
        yield f"  and {counted(len(found) - _MOST, 'other')}"


def _why_later(draft: Draft) -> Iterator[str]:
    """Name the tasks that keep others, or themselves, from being submitted now."""
    if not draft.plan.count(LATER):
        return
    here = {
        (name, node.key(index))
        for name, node in draft.plan.nodes.items()
        for index, flying in node.in_flight.items()
        if flying.listed
    }
    causes = [
        task
        for of, task in draft.standing.tasks.items()
        if task.under_way and task.state is not State.CANCELLED and of not in here
    ]
    if not causes:  # those left out are not among the tasks that were named
        return
    why = causes[0].words or f"{causes[0].state}, with another scheduler"
    yield f"Left for later, until it is known how these end: {some([t.name for t in causes])}"
    yield f"  {' '.join(why.splitlines())}"


def submitted_lines(draft: Draft, site_why: str) -> Iterator[str]:
    """Yield what was submitted, and the commands to type next."""
    where = run_option(draft.rundir.folder)
    made = draft.rundir.record(draft.run).exists()  # it is not where nothing is new
    run = f" (run {draft.run})" if made else ""
    yield f"{draft.plan.frozen.workflow}{run}: {_counted(draft)}."
    if count := len(draft.standing.stale) + len(draft.plan.replaced):
        old = "job of an earlier version was" if count == 1 else "jobs of earlier versions were"
        yield f"{count} {old} queued or running: cancelled."
    yield from _why_later(draft)
    if draft.awaited:
        tasks = counted(sum(len(one.batch.tasks) for one in draft.planned), "task")
        yield f"{tasks} will be submitted by a job, once {draft.options.after_run} has succeeded."
        yield f"  hpcpipe status{where}"
        return
    if not draft.prepared:
        yield "Nothing to submit."
        yield f"  hpcpipe status{where}"
        return
    asked: Counter[tuple[str, str, str]] = Counter()
    for prepared in draft.prepared:
        route, batch = prepared.route, prepared.batch
        why = f"; queue {route.why}" if route.queue else ""
        why = f"; up to {batch.lanes} side by side{why}" if batch.lanes > 1 else why
        each = route.resources.share(batch.lanes, 1)
        for node, _ in batch.members():
            asked[node.node.name, str(each), why] += 1
    for (name, resources, why), count in asked.items():
        yield f"  {name}: {count}, each {resources}{why}"
    yield from _promises(draft)
    scheduler = draft.site.scheduler
    if scheduler == "local":
        yield f"Running as processes on this machine ({site_why})."
    calls = f"{draft.calls} call{'s' * (draft.calls != 1)}"
    jobs = draft.jobs()
    ids = " ".join(map(shown, jobs[:6])) + (" …" if len(jobs) > 6 else "")
    yield f"Submitted in {calls}: {scheduler} {ids}. You can log out now."
    yield f"  hpcpipe watch{where} | hpcpipe status{where} | hpcpipe cancel{where}"


def plan_json(draft: Draft, cores: int | None = None) -> dict[str, Any]:
    """Return a plan as plain JSON values, with a prediction if ``cores`` are given.

    Times are in seconds.
    """
    plan = draft.plan
    told = None if cores is None else prediction(draft, cores)
    expected = told and {**asdict(told), "cost": told.cost, "used": told.used}
    return {
        "workflow": plan.frozen.workflow,
        "site": draft.site.name,
        "scheduler": draft.site.scheduler,
        "calls": draft.calls,
        "files": draft.files,
        "tasks": plan.count(RUN),
        "done": plan.count(DONE),
        "in_flight": plan.count(IN_FLIGHT),
        "later": plan.count(LATER),
        "awaited": {
            n: [*dict(one.node.awaited)] for n, one in plan.nodes.items() if one.node.awaited
        },
        "needs_replace": running_stale(draft.standing),
        "made_again": [line.strip() for line in _made_again(draft)][1:],
        "changed": [line.strip() for line in change_lines(plan, draft.rundir)][1:],
        "expected": expected,
        "cost": {
            "charged_in": draft.site.charged_in,
            "accounts": draft.bill.accounts,
            "without_time_limit": draft.bill.open,
        },
        "batches": [_batch_json(prepared, draft) for prepared in draft.prepared],
    }


def _batch_json(prepared: Prepared, draft: Draft) -> dict[str, Any]:
    return {
        "id": prepared.id,
        "elements": prepared.batch.elements,
        "array": None if (at := prepared.batch.indices) is None else fold(at),
        "dependencies": [_wait_json(wait, draft) for wait in prepared.batch.waits],
        "queue": prepared.route.queue.name if prepared.route.queue else None,
        "queue_why": prepared.route.why,
        "queues_not": prepared.route.others,
        "software": prepared.route.software,
        "resources": prepared.route.resources._asdict(),
        "tasks": [
            {
                "node": node.node.name,
                "label": label(node.node.axes, task),
                "element": element,
            }
            for element, (node, task) in _elements(prepared.batch)
        ],
    }


def _elements(batch: Batch) -> Iterator[tuple[int | None, tuple[NodePlan, int]]]:
    """Yield every task of a batch after the array index of its element; None for a plain job."""
    members = batch.members()
    for at, index in enumerate(batch.indices or (None,)):
        first, after = (at, at + 1) if batch.starts is None else batch.starts[at : at + 2]
        yield from ((index, next(members)) for _ in range(first, after))


def _wait_json(wait: Wait, draft: Draft) -> dict[str, Any]:
    standing = isinstance(wait.on, InFlightJob)
    return {
        "batch": None if isinstance(wait.on, InFlightJob) else draft.prepared[wait.on].id,
        "job": wait.on.job if standing else None,  # type: ignore[union-attr]
        "kind": wait.kind,
        "element": wait.element,
        "relaxed": wait.relaxed,
    }
