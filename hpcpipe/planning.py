"""A draft as lines of text and as JSON: what would be submitted, and why the rest would not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hpcpipe.allowance import bill_line, over_budget, pace_line
from hpcpipe.axes import label
from hpcpipe.draft import Draft
from hpcpipe.expected import run_times
from hpcpipe.model import format_time, ranges
from hpcpipe.plan import DONE, IN_FLIGHT, RUN
from hpcpipe.planner.batch import Batch, Standing, Wait
from hpcpipe.planner.predict import Prediction, predict

_BASES = {
    "known": "by the run times known",
    "asked": "if each task takes all the time it asks for",
    "equal": "if each task takes one second: no run times are known",
}


def prediction(draft: Draft, cores: int | None = None) -> Prediction:
    """Predict how a draft would go on so many cores: those the site gives, if not said."""
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
    """Print a plan: nodes, batches with what they wait for, queues and why.

    With ``cores`` also what to expect on so many, with ``others`` why not each other queue.
    """
    plan, scheduler = draft.plan, draft.site.scheduler
    yield f"{plan.workflow.name}: {_counted(draft)}"
    yield f"site {draft.site.name} ({scheduler}): {site_why}"
    width = max(len(name) for name in plan.nodes)
    for name, node in plan.nodes.items():
        axes = " x ".join(f"{axis.name}({len(axis)})" for axis in node.node.axes) or "one task"
        said = ", ".join(
            f"{node.fates.count(fate)} {words}"
            for fate, words in ((RUN, "to run"), (DONE, "done"), (IN_FLIGHT, "in flight"))
            if fate in node.fates
        )
        yield f"  {name:<{width}}  {axes}: {said}"
    if not draft.prepared:
        yield "Nothing to submit."
        return
    yield f"{draft.calls} calls of the scheduler:"
    for number, prepared in enumerate(draft.prepared):
        batch = prepared.batch
        yield f"  [{number}] {prepared.id}: {kind_of(batch)}, each {prepared.route.resources}"
        if batch.waits:
            yield f"      after {'; '.join(_said(wait) for wait in batch.waits)}"
        if prepared.route.queue:
            yield f"      queue: {prepared.route.why}"
        for other in prepared.route.others if others else ():
            yield f"        not {other}"
        if prepared.route.software:
            yield f"      software: {', '.join(prepared.route.software)}"
    yield from _costs(draft)
    yield from _expected(draft, cores)


def kind_of(batch: Batch) -> str:
    """Say how many elements a batch has, and how many tasks are in them."""
    kind = f"array of {batch.elements}" if batch.indices is not None else "1 job"
    if batch.starts is None:
        return kind
    said = f"{kind}, {len(batch.tasks)} tasks"
    if batch.lanes > 1:
        said += f", up to {batch.lanes} side by side"
    return said if batch.turns == 1 else f"{said}, up to {batch.turns} in turn"


def _expected(draft: Draft, cores: int | None) -> Iterator[str]:
    """Say how long it will take, and what it costs that some batches wait for too much."""
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
        waits = f"{relaxed} wait{'s' * (relaxed > 1)} for more than needed"
        much = "" if told.cost is None else f", thought to cost {max(told.cost, 0):.1%} of the time"
        yield f"Relaxed: {waits}{much} on {told.cores} cores."


def _costs(draft: Draft) -> Iterator[str]:
    """Say what it costs at worst, and what is wrong with that; one's own machine is free."""
    if draft.site.scheduler == "local" and not draft.site.accounts:
        return
    yield from filter(None, (bill_line(draft.bill, draft.site), pace_line(draft.calls, draft.site)))
    for line in over_budget(draft.routed, draft.site):
        yield f"Over budget: {line}. It is refused without --over-budget."


def _said(wait: Wait) -> str:
    on = f"[{wait.on}]" if isinstance(wait.on, int) else f"job {wait.on.job} (in flight)"
    if wait.kind == "each":
        return f"each element of {on}"
    if wait.element is not None:
        return f"element {wait.element} of {on}"
    return f"all of {on}" + (" (more than it needs: relaxed)" if wait.relaxed else "")


def _counted(draft: Draft) -> str:
    plan = draft.plan
    run, done, flying = (plan.count(fate) for fate in (RUN, DONE, IN_FLIGHT))
    said = [f"{run} task{'s' * (run != 1)} to run"]
    if done:
        said.append(f"{done} done")
    if flying:
        said.append(f"{flying} in flight")
    return ", ".join(said)


def submitted_lines(draft: Draft, site_why: str) -> Iterator[str]:
    """Say back, in a few lines, what was submitted and what to type next."""
    yield f"{draft.plan.workflow.name} (run {draft.run}): {_counted(draft)}."
    if draft.superseded:
        count = len(draft.superseded)
        yield f"{count} of them were queued or running as they were before: cancelled."
    if not draft.prepared:
        yield "Nothing to submit."
        yield "  hpcpipe status"
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
    scheduler = draft.site.scheduler
    if scheduler == "local":
        yield f"Running on this machine's processes ({site_why})."
    calls = f"{draft.calls} call{'s' * (draft.calls != 1)}"
    jobs = draft.jobs()
    shown = " ".join(jobs[:6]) + (" …" if len(jobs) > 6 else "")
    yield f"Submitted in {calls}: {scheduler} {shown}. You can log out now."
    yield "  hpcpipe watch | hpcpipe status | hpcpipe cancel"


def plan_json(draft: Draft, cores: int | None = None) -> dict[str, Any]:
    """Give a plan as JSON can hold it, with what to expect on so many ``cores`` if that is asked.

    Times are in seconds.
    """
    plan = draft.plan
    told = None if cores is None else prediction(draft, cores)
    expected = told and {**asdict(told), "cost": told.cost, "used": told.used}
    return {
        "workflow": plan.workflow.name,
        "site": draft.site.name,
        "scheduler": draft.site.scheduler,
        "calls": draft.calls,
        "tasks": plan.count(RUN),
        "done": plan.count(DONE),
        "in_flight": plan.count(IN_FLIGHT),
        "expected": expected,
        "cost": {
            "charged_in": draft.site.charged_in,
            "accounts": draft.bill.accounts,
            "without_time_limit": draft.bill.open,
        },
        "batches": [
            {
                "id": prepared.id,
                "elements": prepared.batch.elements,
                "array": _indices(prepared.batch.indices),
                "dependencies": [_wait_json(wait, draft) for wait in prepared.batch.waits],
                "queue": prepared.route.queue.name if prepared.route.queue else None,
                "queue_why": prepared.route.why,
                "queues_not": prepared.route.others,
                "software": prepared.route.software,
                "resources": prepared.route.resources._asdict(),
                "tasks": [
                    {"node": node.node.name, "label": label(node.node.axes, task)}
                    for node, task in prepared.batch.members()
                ],
            }
            for prepared in draft.prepared
        ],
    }


def _wait_json(wait: Wait, draft: Draft) -> dict[str, Any]:
    standing = isinstance(wait.on, Standing)
    return {
        "batch": None if isinstance(wait.on, Standing) else draft.prepared[wait.on].id,
        "job": wait.on.job if standing else None,  # type: ignore[union-attr]
        "kind": wait.kind,
        "element": wait.element,
        "relaxed": wait.relaxed,
    }


def _indices(indices: Any) -> str | None:
    if indices is None:
        return None
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(indices))
