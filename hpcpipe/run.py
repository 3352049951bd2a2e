"""A run of a workflow, from Python: submit it, watch it, take its results.

Everything a run is lies in its folder, so a `Run` is only a look at it: any number of clients can
hold one, and ``Run(folder)`` is as good as the one that `submit` returned.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import ResultError, TasksFailed, UsageError, near
from hpcpipe.ledger import Ledger
from hpcpipe.outcome import Refused, load_value
from hpcpipe.record import RunRecord, read_record
from hpcpipe.rundir import RunDir
from hpcpipe.status import Report, make_report

if TYPE_CHECKING:
    from hpcpipe.draft import Draft
    from hpcpipe.model import Resources
    from hpcpipe.node import Node
    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded
    from hpcpipe.workflow import Workflow


class Run:
    """The run of a workflow in its folder, ``<base_dir>/<workflow>``.

    Raises UsageError where nothing was ever submitted there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.rundir = RunDir(Path(folder))
        if not self.rundir.exists:
            raise UsageError(f"{folder}: nothing was submitted from here; try hpcpipe submit FILE")

    @property
    def record(self) -> RunRecord:
        """What the latest submission planned."""
        return read_record(self.rundir, Ledger(self.rundir.ledger).read().last["run"])

    def report(self, *, fresh: bool = False) -> Report:
        """Tell the state of every task; see `hpcpipe.status.make_report`."""
        return make_report(self.rundir, fresh=fresh)

    def wait(self, *, show: bool = False, timeout: float | None = None) -> Report:
        """Wait until nothing is left that may still change, and return the last report.

        ``show`` draws progress on the terminal. Raises TasksFailed where a task is not good,
        TimeoutError after ``timeout`` seconds; in both cases the run goes on by itself.
        """
        from hpcpipe.watch import follow

        report = follow(self.rundir, show=show, timeout=timeout)
        if report.failures:
            first = report.failures[0]
            raise TasksFailed(
                f"{len(report.failures)} of {report.total.total()} tasks are not good; "
                f"{first.name}: {first.words or first.reason}"
            )
        return report

    def results(self, node: Node | str) -> dict[str, Any]:
        """Load every good value of a node, by label (the label of a node without axes is "").

        Raises UsageError for an unknown node, ResultError for a result not safe to read.
        """
        name = node if isinstance(node, str) else node.name
        record = self.record
        if name not in record.nodes:
            raise UsageError(f"no node {name!r}{near(name, record.nodes)}")
        found, listing = record.nodes[name], self.rundir.list_all([name])[name]
        return {
            found.label(index): self._load(name, key, found.task(index), listing.packed)
            for index in range(len(found))
            if (key := found.key(index)) in listing.good
        }

    def result(self, task: str) -> Any:
        """Load the value of one task, named ``node/label``.

        Raises UsageError where no task, or more than one, has the name; ResultError where it has
        no good outcome.
        """
        node, index = self.record.one(task)
        packed = self.rundir.list_all([node.name])[node.name].packed
        return self._load(node.name, node.key(index), node.task(index), packed)

    def loaders(
        self, record: RunRecord, tasks: Collection[str]
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Give for each of the named tasks a function that loads its value, as `result` does."""
        wanted = set(tasks)
        listings = self.rundir.list_all({name.partition("/")[0] for name in wanted})
        for name, listing in listings.items():
            node = record.nodes[name]
            for index in range(len(node)):
                if (task := node.task(index)) in wanted:
                    yield task, partial(self._load, name, node.key(index), task, listing.packed)

    def _load(self, node: str, key: str, task: str, packed: Mapping[str, str]) -> Any:
        try:
            return load_value(packed.get(key) or str(self.rundir.result(node, key)))
        except FileNotFoundError:
            raise ResultError(f"{task}: no good outcome; see hpcpipe explain {task}") from None
        except Refused as error:
            raise ResultError(str(error)) from error

    def cancel(self, names: tuple[str, ...] = ()) -> int:
        """Cancel the whole run, or the tasks of these names; return how many were live.

        What shares an element with a cancelled task goes with it, and is counted, too. What depends
        on one can no longer run.
        """
        from hpcpipe.cancel import cancel

        return cancel(self.rundir, names).tasks


class Results(Mapping[str, dict[str, Any]]):
    """The good values of a run, by node and label: ``results["average"]["4"]``.

    A node's values are loaded when it is asked for, by name or as the `Node` itself.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._nodes = tuple(run.record.nodes)

    def __getitem__(self, node: Node | str) -> dict[str, Any]:
        name = node if isinstance(node, str) else node.name
        if name not in self._nodes:
            raise KeyError(name)
        return self.run.results(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def submit(
    workflow: Workflow,
    *,
    site: str | Site | Loaded | None = None,
    resources: Resources | None = None,
    source: Mapping[str, Any] | None = None,
    raise_for: Any = None,
    over_budget: bool = False,
) -> Run:
    """Hand everything that is not done to the scheduler, and return at once.

    ``site`` is a site's name or file (default: the one that counts here); ``resources`` are laid
    over every node's. Raises WorkflowError, ConfigError, SchedulerError, LockHeld; and OverBudget,
    unless ``over_budget`` lets an account be charged more than the site gives it.
    """
    return submit_with_draft(
        workflow,
        site=site,
        resources=resources,
        source=source,
        raise_for=raise_for,
        over_budget=over_budget,
    )[0]


def submit_with_draft(
    workflow: Workflow,
    *,
    site: str | Site | Loaded | None = None,
    resources: Resources | None = None,
    source: Mapping[str, Any] | None = None,
    raise_for: Any = None,
    over_budget: bool = False,
) -> tuple[Run, Draft]:
    """Do what `submit` does, and tell what was submitted."""
    from hpcpipe.adopting import adopt
    from hpcpipe.allowance import check_budget
    from hpcpipe.draft import draft, scheduler_options
    from hpcpipe.schedulers import make_scheduler
    from hpcpipe.submit import submit_draft

    chosen, site_file = pick_site(site)
    rundir = RunDir(workflow.folder)
    # A first plan is made before the folder is: one that fails leaves nothing behind.
    drafted = None if rundir.exists else draft(workflow, chosen, resources=resources)
    if drafted is not None and not over_budget:
        check_budget(drafted.routed, chosen)
    rundir.create()
    workflow.begin()
    with rundir.lock():
        if drafted is None or rundir.exists:
            adopt(rundir, make_scheduler(chosen.scheduler, scheduler_options(chosen)))
            drafted = draft(workflow, chosen, resources=resources, raise_for=raise_for)
            if not over_budget:
                check_budget(drafted.routed, chosen)
        submit_draft(drafted, source or _source(workflow), site_file)
    remember(rundir.folder)
    return Run(workflow.folder), drafted


def pick_site(site: str | Site | Loaded | None) -> tuple[Site, str]:
    """Give the site that is meant, and the file it can be read from again, for `retry`."""
    from hpcpipe.site.load import Loaded, load_site

    if site is None or isinstance(site, str):
        site = load_site(site)
    return (site.site, str(site.file)) if isinstance(site, Loaded) else (site, site.name)


def _source(workflow: Workflow) -> dict[str, Any]:
    """Say where a workflow that was submitted from Python can be read again, for `retry`."""
    file = workflow.source or getattr(sys.modules.get("__main__"), "__file__", None)
    return {"file": str(Path(file).resolve()), "name": workflow.name} if file else {}


# --- which run a command is about -----------------------------------------------------------------


def _memory() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "hpcpipe", "runs")


def remember(folder: Path) -> None:
    """Note that a run was submitted from this working folder, for `find_run`."""
    line = f"{time.time():.0f}\t{os.fspath(Path.cwd())!r}\t{os.fspath(folder)!r}\n"
    try:
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with _memory().open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(line)
    except OSError:
        return  # a home that cannot be written to: find_run then looks for the folder itself


def find_run(named: str | None) -> Path:
    """Find the run that a command is about.

    The folder that was named; or the one we are in; or the one last submitted from here; or the
    latest in the folders right below. Raises UsageError where there is none.
    """
    here = Path.cwd()
    if named:
        for folder in (Path(named), Path(named).parent):
            if RunDir(folder).exists:
                return folder
        raise UsageError(f"{named}: nothing was submitted there; name the folder base_dir/workflow")
    for folder in (here, *here.parents):
        if RunDir(folder).exists:
            return folder
    if (last := _last_from(here)) is not None:
        return last
    ledgers = [*here.glob("*/.hpcpipe/ledger.jsonl"), *here.glob("*/*/.hpcpipe/ledger.jsonl")]
    if ledgers:
        return max(ledgers, key=lambda ledger: ledger.stat().st_mtime).parent.parent
    raise UsageError(
        "nothing was submitted from this folder; name the run's folder with --run, "
        "or start one: hpcpipe submit FILE"
    )


def _last_from(here: Path) -> Path | None:
    from ast import literal_eval

    try:
        lines = _memory().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        _, cwd, folder = line.split("\t")
        if Path(literal_eval(cwd)) == here and RunDir(Path(literal_eval(folder))).exists:
            return Path(literal_eval(folder))
    return None
