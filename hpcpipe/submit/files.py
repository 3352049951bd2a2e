"""Writes all that jobs and later clients need, before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcpipe.jobs import Reason
from hpcpipe.status.attempts import with_ends
from hpcpipe.store.outcomes import Store
from hpcpipe.store.plan import joined
from hpcpipe.store.record import (
    DIRECT,
    BatchRecord,
    RunRecord,
    latest_record,
    write_record,
)
from hpcpipe.store.rundir import write_pickle, write_whole
from hpcpipe.submit.prepare import Draft, Prepared, scheduler_options
from hpcpipe.submit.retry import forced


def write_files(draft: Draft, record: RunRecord) -> None:
    """Write task files, scripts, the plan and the run's record; note the end of jobs in claims."""
    rundir = draft.rundir
    store = Store(rundir)
    store.create(draft.plan.nodes)
    end_claims(draft)
    for (name, key), task in draft.standing.tasks.items():
        if task.reason in (Reason.DAMAGED, Reason.GONE, Reason.CHANGED):
            store.clear(name, key)
    for name, key in forced(draft.chosen, draft.plan.frozen):
        store.disown(name, key)
    if one := draft.inherited:
        write_whole(rundir.home / one.path, one.content, 0o400)
    for prepared in draft.prepared:
        write_whole(rundir.tasks(prepared.id), b"".join(prepared.tasks), 0o400)
        script = prepared.script.encode("utf-8", "surrogateescape")
        write_whole(rundir.script(prepared.id), script, 0o500)
    if draft.file_digests:
        write_pickle(rundir.files, draft.file_digests)
    write_record(rundir, record, draft.plan.frozen._replace(nodes=record.nodes))


def end_claims(draft: Draft) -> None:
    """Note in the claims of tasks that have not succeeded which of their jobs have ended."""
    ended: dict[str, dict[str, set[str]]] = {}
    again = {name: {*map(node.key, node.to_run)} for name, node in draft.plan.nodes.items()}
    for name, key in draft.standing.tasks:
        batches = draft.standing.ended(name, key, again=key in again[name])
        ended.setdefault(name, {})[key] = batches
    for name, keys in ended.items():
        Store(draft.rundir).end_claims(name, keys)


def make_record(draft: Draft, source: Mapping[str, Any], site_name: str) -> RunRecord:
    """Return the record of the run that a draft becomes."""
    frozen = draft.plan.frozen
    nodes = frozen.nodes
    before = draft.standing.record.inherited if draft.standing.record else ""
    if DIRECT in source and draft.history.runs:
        nodes = joined(latest_record(draft.rundir, draft.history).nodes, nodes)
    batches = map(_batch_record, draft.prepared)
    return RunRecord(
        run=draft.run,
        workflow=frozen.workflow,
        source=source,
        cwd=frozen.cwd,
        site=site_name,
        scheduler=draft.site.scheduler,
        options=scheduler_options(draft.site),
        poll_seconds=draft.site.limits.poll_seconds,
        settle_seconds=draft.site.limits.settle_seconds,
        nodes=nodes,
        batches={batch.id: batch for batch in batches},
        sweep=frozen.sweep,
        resources=draft.plan.resources.over(draft.plan.kept),
        needs=draft.needs,
        attempts=_attempts(draft),
        since=draft.since,
        notify=draft.notify,
        inherited=draft.inherited.path if draft.inherited else before,
        after=draft.options.after_run or "" if draft.awaited else "",
    )


def _batch_record(prepared: Prepared) -> BatchRecord:
    return BatchRecord(
        prepared.id,
        tuple(node.node.name for node in prepared.batch.nodes),
        b"".join(bytes.fromhex(node.key(task)) for node, task in prepared.batch.members()),
        prepared.batch.indices,
        prepared.route.resources,
        prepared.route.queue.name if prepared.route.queue else None,
        prepared.route.why,
        prepared.batch.which,
        prepared.batch.starts,
        prepared.route.others,
        prepared.route.software,
        prepared.batch.lanes,
        prepared.batch.turns,
    )


def _attempts(draft: Draft) -> dict[str, dict[str, list[Any]]]:
    before = draft.standing.record
    again = {name: {*map(node.key, node.to_run)} for name, node in draft.plan.nodes.items()}
    tasks = (task for (name, key), task in draft.standing.tasks.items() if key in again[name])
    return with_ends(before.attempts if before else {}, tasks)
