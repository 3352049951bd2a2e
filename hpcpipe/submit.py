"""Plan → submissions: everything with the scheduler, nothing twice, whenever we are killed.

The order of events is the whole point. Under the run's lock: what an earlier client left behind is
adopted; the plan, the task files and the scripts are on disk before anything is submitted; the
*intent* to submit a batch, with its token, is on disk before the command runs, and the job id right
after. Batches that wait for no other are submitted held, and let go when the last id is on disk: no
job can end, or be forgotten by the scheduler, while jobs that depend on it are being submitted.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcpipe.batches import Batch, Limits, Standing, make_batches
from hpcpipe.digest import Files
from hpcpipe.errors import SchedulerError, SchedulerUnavailable, UsageError
from hpcpipe.ledger import History, Ledger, Submission
from hpcpipe.model import After, JobStatus, Resources
from hpcpipe.plan import InFlight, Known, Plan, make_plan
from hpcpipe.record import BatchRecord, NodeRecord, RunRecord, read_record, write_record
from hpcpipe.render import Job, make_job, render
from hpcpipe.routing import Route, route
from hpcpipe.rundir import RunDir, read_pickle, write_pickle, write_whole
from hpcpipe.schedulers import make_scheduler
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.site import Site
from hpcpipe.taskfile import TaskWriter
from hpcpipe.workflow import Workflow

_IN_DOUBT = 3.0  # seconds within which a submit command whose client was killed may still arrive
_TRIES = 4  # of one submit command, while the scheduler does not answer


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch ready to be handed over: its id, where it goes, its script and its task file."""

    batch: Batch
    id: str
    route: Route
    script: str
    tasks: bytes


@dataclass(frozen=True, eq=False)
class Draft:
    """All that a submission would do, with nothing written yet."""

    plan: Plan
    site: Site
    scheduler: Scheduler
    rundir: RunDir
    run: int
    cwd: str
    history: History
    prepared: tuple[Prepared, ...]

    @property
    def calls(self) -> int:
        """How many submit commands it takes."""
        return len(self.prepared)

    def jobs(self) -> list[str]:
        """List the ids of the jobs it became, once submitted, in the scheduler's spelling."""
        submissions = Ledger(self.rundir.ledger).read().submissions
        return [submissions[one.id].job or "?" for one in self.prepared]


def draft(
    workflow: Workflow,
    site: Site,
    *,
    resources: Resources | None = None,
    raise_for: Callable[[RunDir], Mapping[str, Mapping[str, Resources]]] | None = None,
) -> Draft:
    """Work out what a submission would do. Asks the scheduler at most once, writes nothing.

    ``raise_for`` gives, by node and key, the resources of tasks that need more than before. Raises
    UsageError where the scheduler could not work in the run's folder.
    """
    rundir = RunDir(workflow.folder)
    scheduler = make_scheduler(site.scheduler, scheduler_options(site))
    _check_path(rundir.folder.resolve(), scheduler)
    history = Ledger(rundir.ledger).read()
    raised = raise_for(rundir) if raise_for else {}
    known = _known(workflow, rundir, history, scheduler, raised)
    files = Files(workflow.files, read_pickle(rundir.files))
    plan = make_plan(workflow, known, files, resources)
    limits = Limits(site.limits.array_size, site.limits.calls)
    batches = make_batches(plan, scheduler.capabilities, limits)
    run = len(history.runs) + 1
    cwd = str(Path.cwd())
    writer = TaskWriter(plan, rundir, run, cwd, site.limits.settle_seconds)
    prepared = tuple(_prepare(batch, writer, site, workflow, cwd) for batch in batches)
    return Draft(plan, site, scheduler, rundir, run, cwd, history, prepared)


def _check_path(folder: Path, scheduler: Scheduler) -> None:
    if found := re.search(scheduler.capabilities.no_path, str(folder)):
        raise UsageError(
            f"{folder}: {scheduler.name} gives {found[0]!r} in a path a meaning of its own; "
            "choose a base_dir without it"
        )


def scheduler_options(site: Site) -> dict[str, Any]:
    """Give the options of the site's that its adapter takes."""
    return (
        {"cpus": site.local.cpus, "memory": site.local.memory} if site.scheduler == "local" else {}
    )


def _prepare(
    batch: Batch, writer: TaskWriter, site: Site, workflow: Workflow, cwd: str
) -> Prepared:
    where = route(batch.resources, site)
    taskfile = writer.write(batch)
    job: Job = make_job(batch, taskfile.batch, where, site, workflow.name, cwd)
    return Prepared(batch, taskfile.batch, where, render(job, site), taskfile.content)


# --- what is known before ------------------------------------------------------------------------


def _known(
    workflow: Workflow,
    rundir: RunDir,
    history: History,
    scheduler: Scheduler,
    raised: Mapping[str, Mapping[str, Resources]],
) -> dict[str, Known]:
    """Say of every node which keys are good and which are in flight."""
    if not history.runs:
        return {}
    listings = {name: rundir.list_results(name) for name in workflow.nodes}
    open_: dict[str, list[tuple[str, str, InFlight]]] = {}  # by job: node, key, place
    for batch, submission in _accepted(rundir, history):
        listing = listings.get(batch.node)
        if listing is None or submission.job is None:
            continue
        for key, index in batch.elements():
            if key not in listing.good and batch.id not in listing.errors.get(key, ()):
                place = InFlight(batch.id, submission.job, index)
                open_.setdefault(submission.job, []).append((batch.node, key, place))
    live = scheduler.poll(open_)
    in_flight: dict[str, dict[str, InFlight]] = {name: {} for name in workflow.nodes}
    for job, places in open_.items():
        for node, key, place in places:
            status = live.get(scheduler.element(job, place.index))
            if status is not None and not never(status):
                in_flight[node][key] = place
    return {
        name: Known(listing.good, in_flight[name], raised.get(name, {}))
        for name, listing in listings.items()
    }


def never(status: JobStatus) -> bool:
    """Tell whether a queued job can never start, its predecessor having failed."""
    return status.why == "DependencyNeverSatisfied"


def _accepted(rundir: RunDir, history: History) -> Iterator[tuple[BatchRecord, Submission]]:
    """Give every accepted batch with its submission, run by run."""
    runs = {one.run for one in history.submissions.values() if one.job and not one.cancelled}
    for run in sorted(runs):
        record = read_record(rundir, run)
        for batch in record.batches.values():
            submission = history.submissions.get(batch.id)
            if submission is not None and submission.job and not submission.cancelled:
                yield batch, submission


# --- submitting ----------------------------------------------------------------------------------


def adopt(rundir: RunDir, scheduler: Scheduler) -> History:
    """Settle what a killed client left in doubt: jobs that exist get their id, others are void.

    A job that turns up after all was submitted held, so it cannot have run: it is cancelled.
    """
    ledger = Ledger(rundir.ledger)
    history = ledger.read()
    adrift = {one.token: one for one in history.adrift()}
    if not adrift:
        return history
    youngest = max(one.time for one in adrift.values())
    while True:
        found = scheduler.find(adrift)
        if len(found) == len(adrift) or time.time() - youngest > _IN_DOUBT:
            break
        time.sleep(0.2)
    for token, submission in adrift.items():
        if token in found:
            ledger.submitted(submission.batch, found[token])
    void = [one.batch for token, one in adrift.items() if token not in found]
    if void:
        ledger.cancelled(void, "never reached the scheduler")
    return ledger.read()


def submit_draft(draft: Draft, source: Mapping[str, Any], site_name: str) -> list[Submission]:
    """Hand a draft over. The caller holds the run's lock, and drafted under it.

    Raises SchedulerError where the scheduler refuses; what this submission had begun is cancelled.
    """
    rundir, scheduler = draft.rundir, draft.scheduler
    ledger = Ledger(rundir.ledger)
    record = _record(draft, source, site_name)
    _write_files(draft, record)
    ledger.run(draft.run, site=site_name, scheduler=draft.site.scheduler)
    rundir.asked.unlink(missing_ok=True)  # what the scheduler said before is out of date now
    jobs: list[str] = []
    left = draft.history.held()  # by a client that was killed before it let them go
    held: list[str] = []
    release: list[str] = []
    try:
        for prepared in draft.prepared:
            first = not any(isinstance(wait.on, int) for wait in prepared.batch.waits)
            job = _submit_one(draft, prepared, jobs, ledger, held=first)
            jobs.append(job)
            if first:
                held.append(prepared.id)
                release.append(job)
        scheduler.release(release)
        _release_left(scheduler, left)
    except SchedulerUnavailable as error:
        raise SchedulerUnavailable(
            f"{error}\n{len(jobs)} of {draft.calls} batches are with the scheduler, held; "
            "nothing is lost: the same command again goes on from here"
        ) from error
    except SchedulerError as error:
        scheduler.cancel(jobs)
        hint = _hint(error, scheduler)
        ledger.refused([prepared.id for prepared in draft.prepared], str(error), hint)
        refused = draft.prepared[min(len(jobs), draft.calls - 1)]
        raise SchedulerError(_refusal(error, refused, hint)) from error
    ledger.released([*(one.batch for one in left), *held])
    submissions = ledger.read().submissions
    return [submissions[prepared.id] for prepared in draft.prepared]


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
    token = secrets.token_hex(8)
    ledger.submitting(prepared.id, draft.run, token, held)
    script = draft.rundir.batches / f"{prepared.id}.sh"
    after = [
        After(
            wait.on.job if isinstance(wait.on, Standing) else jobs[wait.on], wait.kind, wait.element
        )
        for wait in prepared.batch.waits
    ]
    for attempt in range(_TRIES):
        try:
            job = draft.scheduler.submit(script, after, token=token, held=held)
            break
        except SchedulerUnavailable:
            if attempt == _TRIES - 1:
                raise
            # The command may have arrived though its answer did not.
            time.sleep(2**attempt)
            found = draft.scheduler.find([token])
            if token in found:
                job = found[token]
                break
    ledger.submitted(prepared.id, job)
    return job


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
    node = prepared.batch.node.node.name
    said = f"{error}\nRefused: batch {prepared.id} of node {node} ({prepared.route.resources})"
    if prepared.route.queue:
        said += f" for queue {prepared.route.queue.name}"
    said += ". Nothing of this submission is left in the queue.\n"
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
    nodes = [
        NodeRecord(
            name,
            node.node.axes,
            node.keys,
            node.edges,
            draft.plan.asked(node),
            folder / name if node.node.folder else None,
        )
        for name, node in draft.plan.nodes.items()
    ]
    batches = [
        BatchRecord(
            prepared.id,
            prepared.batch.node.node.name,
            b"".join(bytes.fromhex(prepared.batch.node.key(t)) for t in prepared.batch.tasks),
            prepared.batch.indices,
            prepared.route.resources,
            prepared.route.queue.name if prepared.route.queue else None,
            prepared.route.why,
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
        nodes={node.name: node for node in nodes},
        batches={batch.id: batch for batch in batches},
    )
