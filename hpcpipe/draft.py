"""What a submission would do, worked out in full before anything is written or submitted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcpipe.allowance import Bill, find_packs, make_bill
from hpcpipe.axes import label
from hpcpipe.errors import ConfigError, UsageError
from hpcpipe.expected import run_times
from hpcpipe.files import Files
from hpcpipe.ledger import History, Ledger
from hpcpipe.model import JobStatus, Resources, State
from hpcpipe.plan import InFlight, Known, Plan, make_plan
from hpcpipe.planner.batch import Batch, Limits
from hpcpipe.planner.batches import make_batches
from hpcpipe.record import accepted, read_record
from hpcpipe.render import Job, make_job, render
from hpcpipe.routing import Route, route
from hpcpipe.rundir import RunDir, read_pickle
from hpcpipe.schedulers import make_scheduler
from hpcpipe.schedulers.base import Scheduler
from hpcpipe.site import Site
from hpcpipe.taskfile import TaskWriter
from hpcpipe.workflow import Workflow

# Keys of a scheduler's table that its adapter takes.
_OPTIONS = ("cluster", "dialect", "library", "profile", "cluster_id", "connection_file")


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
    superseded: tuple[str, ...]  # elements in the queue for tasks that are otherwise now

    @property
    def routed(self) -> list[tuple[Batch, Route]]:
        """Every batch with where it goes."""
        return [(one.batch, one.route) for one in self.prepared]

    @property
    def bill(self) -> Bill:
        """What it costs at worst."""
        return make_bill(self.routed)

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
    UsageError where the scheduler could not work in the run's folder, ConfigError where the site
    cannot take what it would get.
    """
    rundir = RunDir(workflow.folder)
    scheduler = make_scheduler(site.scheduler, scheduler_options(site))
    _check_path(rundir.folder.resolve(), scheduler)
    _check_nodes(rundir.folder.resolve(), site)
    history = Ledger(rundir.ledger).read()
    raised = raise_for(rundir) if raise_for else {}
    known = _known(workflow, rundir, history, scheduler, raised)
    files = Files(workflow.files, read_pickle(rundir.files))
    plan = make_plan(workflow, known, files, resources)
    run = len(history.runs) + 1
    cwd = str(Path.cwd())
    limits = replace(_limits(site), lanes=_lanes(plan, site))
    while True:  # where a queue takes fewer jobs, again with more tasks in each
        batches = make_batches(
            plan, scheduler.capabilities, limits, lambda: run_times(plan, rundir, history)
        )
        writer = TaskWriter(plan, rundir, run, cwd, site.limits.settle_seconds)
        prepared = tuple(
            _prepare(batch, place, writer, site, workflow, cwd)
            for place, batch in enumerate(batches)
        )
        packs = find_packs([(one.batch, one.route) for one in prepared], site, limits.pack_of)
        if not packs:
            break
        limits = replace(limits, packs={**limits.packs, **packs})
    superseded = tuple(_superseded(plan, known, rundir, history, scheduler))
    return Draft(plan, site, scheduler, rundir, run, cwd, history, prepared, superseded)


def _limits(site: Site) -> Limits:
    """Give the planner what it needs to know of a site's limits."""
    of = site.limits
    counted = of.max_jobs if of.elements_count and of.overflow == "refused" else None
    untimed = site.defaults.time is None
    return Limits(
        of.array_size, of.calls, counted, of.shortest_job, cores=of.cores, untimed=untimed
    )


def _lanes(plan: Plan, site: Site) -> Mapping[Resources, int]:
    """Say how many tasks, by what they ask for, go side by side in the queue that each would."""
    lanes = {}
    for node in plan.nodes.values() if any(queue.exclusive for queue in site.queues) else ():
        for asked in {plan.asked(node), *(plan.asked(node, task) for task in node.raised)}:
            with suppress(ConfigError):  # which is told where a batch of it is to be routed
                lanes[asked] = route(asked, site).room
    return lanes


def _check_path(folder: Path, scheduler: Scheduler) -> None:
    if found := re.search(scheduler.capabilities.no_path, str(folder)):
        raise UsageError(
            f"{folder}: {scheduler.name} gives {found[0]!r} in a path a meaning of its own; "
            "choose a base_dir without it"
        )


def _check_nodes(folder: Path, site: Site) -> None:
    """Raise where no compute node could write to the run's folder."""
    if not site.nodes.common:
        raise ConfigError(
            f"site {site.name!r}: its nodes share no filesystem with this machine, "
            "and hpcpipe finds its results nowhere else"
        )
    if not site.nodes.home and folder.is_relative_to(Path.home().resolve()):
        place = site.scratch.common or "a common folder outside it"
        raise UsageError(
            f"{folder}: the nodes of site {site.name!r} cannot write to the home folder; "
            f"choose a base_dir below {place}"
        )


def scheduler_options(site: Site) -> dict[str, Any]:
    """Give the options of the site's that its adapter takes."""
    if site.scheduler == "local":
        return {"cpus": site.local.cpus, "memory": site.local.memory}
    own = getattr(site, site.scheduler, None)
    options = {name: getattr(own, name, None) for name in _OPTIONS}
    options["cancels"] = site.limits.cancels
    return {name: value for name, value in options.items() if value is not None}


def _prepare(
    batch: Batch, place: int, writer: TaskWriter, site: Site, workflow: Workflow, cwd: str
) -> Prepared:
    try:
        where = route(batch.resources.times(1, batch.turns), site, batch.lanes)
    except ConfigError as error:
        shared = f" ({batch.longest} of its tasks share a job)" if batch.longest > 1 else ""
        raise ConfigError(f"{batch.name}{shared}: {error}") from error
    taskfile = writer.write(batch)
    job: Job = make_job(batch, taskfile.batch, where, site, workflow.name, cwd, place)
    return Prepared(batch, taskfile.batch, where, render(job, site), taskfile.content)


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
    listings = rundir.list_all(workflow.nodes)
    open_: dict[str, list[tuple[str, str, InFlight]]] = {}  # by job: node, key, place
    for batch, submission in accepted(rundir, history):
        if submission.job is None:
            continue
        for node, key, index in batch.tasks():
            listing = listings.get(node)
            if listing is None or key in listing.good or batch.id in listing.errors.get(key, ()):
                continue
            place = InFlight(batch.id, submission.job, index, batch.pack(index))
            open_.setdefault(submission.job, []).append((node, key, place))
    live = scheduler.poll(open_)
    if open_:  # look again: what ended since the first look has left the queue by now
        listings = rundir.list_all(workflow.nodes)
    in_flight: dict[str, dict[str, InFlight]] = {name: {} for name in workflow.nodes}
    stuck: dict[str, list[str]] = {name: [] for name in workflow.nodes}
    for job, places in open_.items():
        for node, key, place in places:
            if key in listings[node].good:
                continue
            element = scheduler.element(job, place.index)
            status = live.get(element)
            if status is not None and never(status):
                stuck[node].append(element)
            elif status is not None:
                in_flight[node][key] = place
    return {
        name: Known(listing.good, in_flight[name], raised.get(name, {}), stuck[name])
        for name, listing in listings.items()
    }


def _superseded(
    plan: Plan, known: Mapping[str, Known], rundir: RunDir, history: History, scheduler: Scheduler
) -> Iterator[str]:
    """Find what can never start, or is in flight under the name of a task of this plan, but with
    another key.

    Its code or inputs were changed since: its result is of no use, and it would write into the
    same working folder. Tasks under other names are left alone: they may be wanted.
    """
    for name, node in plan.nodes.items():
        yield from known[name].stuck if name in known else ()
        in_flight = known[name].in_flight if name in known else {}
        if len(in_flight) == len(node.in_flight):
            continue
        axes, size = node.node.axes, node.node.size
        keys = {node.key(index) for index in range(size)}
        labels = {label(axes, index) for index in range(size)}
        for key, place in in_flight.items():
            if key not in keys:
                run = history.submissions[place.batch].run
                before = read_record(rundir, run).nodes[name]
                if before.label(before.index(key)) in labels:
                    yield scheduler.element(place.job, place.index)


def never(status: JobStatus) -> bool:
    """Tell whether a queued job can never start."""
    return status.state is State.BLOCKED
