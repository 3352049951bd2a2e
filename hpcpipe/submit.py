"""Plan → submissions: everything with the scheduler, nothing twice, whenever we are killed.

The order of events is the whole point. Under the run's lock: what an earlier client left behind is
adopted; the plan, the task files and the scripts are on disk before anything is submitted; the
*intent* to submit a batch, with its token, is on disk before the command runs, and the job id right
after. Batches that wait for no other are submitted held, and let go when the last id is on disk: no
job can end, or be forgotten by the scheduler, while jobs that depend on it are being submitted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpcpipe.draft import Draft, Prepared, scheduler_options
from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.ledger import Ledger, Submission
from hpcpipe.model import After
from hpcpipe.planner.batch import Standing
from hpcpipe.record import (
    DIRECT,
    BatchRecord,
    NodeRecord,
    RunRecord,
    joined,
    read_record,
    write_record,
)
from hpcpipe.rundir import write_pickle, write_whole
from hpcpipe.schedulers.base import Scheduler

_TRIES = 6  # of one submit command, while the scheduler does not answer: half a minute
_WAITS = (5, 10, 20, 40, 60)  # seconds, while a limit of jobs is reached


def submit_draft(draft: Draft, source: Mapping[str, Any], site_name: str) -> list[Submission]:
    """Hand a draft over. The caller holds the run's lock, and drafted under it.

    Raises SchedulerError where the scheduler refuses; what this submission had begun is cancelled.
    """
    rundir, scheduler = draft.rundir, draft.scheduler
    ledger = Ledger(rundir.ledger)
    record = _record(draft, source, site_name)
    if not draft.prepared and not draft.superseded and _says_nothing_new(draft, record):
        return []
    _write_files(draft, record)
    ledger.run(draft.run, site=site_name, scheduler=draft.site.scheduler)
    rundir.asked.unlink(missing_ok=True)  # what the scheduler said before is out of date now
    scheduler.cancel(draft.superseded)
    jobs: list[str] = []
    left = draft.history.held()  # by a client that was killed before it let them go
    held: list[str] = []
    release: list[str] = []
    try:
        for prepared in draft.prepared:
            if jobs:
                _keep_pace(draft)
            first = not any(isinstance(wait.on, int) for wait in prepared.batch.waits)
            hold = first and scheduler.capabilities.hold
            job = _submit_one(draft, prepared, jobs, ledger, held=hold)
            jobs.append(job)
            if hold:
                held.append(prepared.id)
                release.append(job)
        scheduler.release(release)
        _release_left(scheduler, left)
    except SchedulerUnavailable as error:
        where = "with the scheduler" + ", held" * scheduler.capabilities.hold
        raise SchedulerUnavailable(
            f"{error}\n{len(jobs)} of {draft.calls} batches are {where}; "
            "nothing is lost: the same command again goes on from here"
        ) from error
    except SchedulerError as error:
        _take_back(jobs, error, draft)
        hint = _hint(error, scheduler)
        ledger.refused([prepared.id for prepared in draft.prepared], str(error), hint)
        refused = draft.prepared[min(len(jobs), draft.calls - 1)]
        raise SchedulerError(_refusal(error, refused, hint)) from error
    ledger.released([*(one.batch for one in left), *held])
    submissions = ledger.read().submissions
    return [submissions[prepared.id] for prepared in draft.prepared]


def _says_nothing_new(draft: Draft, record: RunRecord) -> bool:
    """Tell whether the last run planned the same tasks, and left nothing to be released."""
    if not draft.history.runs or draft.history.held():
        return False
    last = read_record(draft.rundir, draft.history.last["run"])
    before = {name: (node.keys, set(node.done)) for name, node in last.nodes.items()}
    return before == {name: (node.keys, set(node.done)) for name, node in record.nodes.items()}


def _release_left(scheduler: Scheduler, left: Sequence[Submission]) -> None:
    """Let go what was left held, one by one: a job that is gone, or runs already, is refused."""
    for one in left:
        try:
            scheduler.release([one.job] if one.job else [])
        except SchedulerUnavailable:
            raise
        except SchedulerError:
            continue  # the plan was made without it, or it needs no release


def _submit_one(
    draft: Draft, prepared: Prepared, jobs: Sequence[str], ledger: Ledger, *, held: bool
) -> str:
    token = f"t{secrets.token_hex(8)}"  # never digits only: PBS would call it a number
    ledger.submitting(prepared.id, draft.run, token, held)
    script = draft.rundir.batches / f"{prepared.id}.sh"
    after = [
        After(
            wait.on.job if isinstance(wait.on, Standing) else jobs[wait.on],
            wait.kind,
            wait.element,
            well=not wait.relaxed,
        )
        for wait in prepared.batch.waits
    ]
    job = _insist(draft.scheduler, token, lambda: draft.scheduler.submit(
        script, after, token=token, held=held
    ))  # fmt: skip
    ledger.submitted(prepared.id, job)
    return job


def _insist(scheduler: Scheduler, token: str, submit: Callable[[], str]) -> str:
    """Submit, again and again where that may help: no answer, or a limit of jobs that is reached.

    Raises what was raised last, where it does not.
    """
    unanswered, refused = 0, 0
    while True:
        try:
            return submit()
        except SchedulerUnavailable as error:
            unanswered += 1
            if unanswered == _TRIES:
                raise
            _wait(error, 2 ** (unanswered - 1))
            # The command may have arrived though its answer did not.
            if token in (found := scheduler.find([token])):
                return found[token]
        except SchedulerError as error:
            if not error.passing or refused == len(_WAITS):
                raise
            _wait(error, _WAITS[refused])
            refused += 1


def _wait(error: SchedulerError, seconds: int) -> None:
    """Sleep, and say why: on standard error, unless the program that submits logs elsewhere."""
    import logging

    logging.getLogger(__name__).warning("%s\nTrying again in %d s.", error, seconds)
    time.sleep(seconds)


def _keep_pace(draft: Draft) -> None:
    """Wait between two submit commands, where the site wants no more than some in a minute."""
    if (rate := draft.site.limits.submits_per_minute) is not None:
        time.sleep(60 / rate)


def _take_back(jobs: Sequence[str], why: SchedulerError, draft: Draft) -> None:
    """Cancel what this submission had begun; raises SchedulerUnavailable where that cannot be."""
    try:
        draft.scheduler.cancel(jobs)
    except SchedulerUnavailable as error:
        raise SchedulerUnavailable(
            f"{why}\nWhat was submitted before it is held, and could not be cancelled: {error}\n"
            "Type: hpcpipe cancel"
        ) from why


def _hint(error: SchedulerError, scheduler: Scheduler) -> str:
    """Name options that would mend a refusal, or nothing."""
    if "account" not in str(error).lower():
        return ""
    try:
        accounts = scheduler.accounts()
    except SchedulerError:
        return ""
    return f"--account {accounts[0]}" if accounts else ""


def _refusal(error: SchedulerError, prepared: Prepared, hint: str) -> str:
    nodes = " ".join(node.node.name for node in prepared.batch.nodes)
    said = f"{error}\nRefused: batch {prepared.id} of {nodes} ({prepared.route.resources})"
    if prepared.route.queue:
        said += f" for queue {prepared.route.queue.name}"
    said += ". Nothing of this submission is left in the queue.\n"
    if error.passing:
        return (
            f"{said}A limit of jobs is reached: submit again later, or with fewer jobs, --pack N."
        )
    if hint:
        return f"{said}You may use another account. Type: hpcpipe retry {hint}"
    return f"{said}Mend the resources, or the site file, and submit again."


def _write_files(draft: Draft, record: RunRecord) -> None:
    rundir = draft.rundir
    for name, node in draft.plan.nodes.items():
        (rundir.results / name).mkdir(exist_ok=True, mode=0o700)
        claims = rundir.list_results(name).claims
        # Not in flight by the scheduler's word, so whoever claimed it is gone.
        for task in node.to_run if claims else ():
            if node.key(task) in claims:
                (rundir.results / name / f"{node.key(task)}.claim").unlink(missing_ok=True)
    for prepared in draft.prepared:
        write_whole(rundir.batches / f"{prepared.id}.tasks", prepared.tasks, 0o400)
        script = prepared.script.encode("utf-8", "surrogateescape")
        write_whole(rundir.batches / f"{prepared.id}.sh", script, 0o500)
    if draft.plan.file_digests:
        write_pickle(rundir.files, draft.plan.file_digests)
    write_record(rundir, record)


def _record(draft: Draft, source: Mapping[str, Any], site_name: str) -> RunRecord:
    folder = draft.rundir.folder
    nodes = {
        name: NodeRecord(
            name,
            node.node.axes,
            node.keys,
            node.edges,
            draft.plan.asked(node),
            folder / name if node.node.folder else None,
            node.node.done,
        )
        for name, node in draft.plan.nodes.items()
    }
    if DIRECT in source and draft.history.runs:
        before = read_record(draft.rundir, draft.history.last["run"])
        nodes = joined(before.nodes, nodes)
    batches = [
        BatchRecord(
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
        for prepared in draft.prepared
    ]
    return RunRecord(
        run=draft.run,
        workflow=draft.plan.workflow.name,
        source=source,
        cwd=draft.cwd,
        site=site_name,
        scheduler=draft.site.scheduler,
        options=scheduler_options(draft.site),
        poll_seconds=draft.site.limits.poll_seconds,
        settle_seconds=draft.site.limits.settle_seconds,
        nodes=nodes,
        batches={batch.id: batch for batch in batches},
        sweep=draft.plan.workflow.sweep,
    )
