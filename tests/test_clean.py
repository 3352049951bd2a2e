"""What earlier runs left and nothing uses: found, counted and deleted, and nothing else."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import QUEUED, Lab

from hpcpipe import each, task
from hpcpipe.cli import hpcpipe
from hpcpipe.errors import SchedulerUnavailable
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import JobEnd
from hpcpipe.run import Run, retry
from hpcpipe.status.instances import Instances
from hpcpipe.status.left_out import find_left_out
from hpcpipe.status.places import find_places
from hpcpipe.store import leftovers
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.leftovers import FOLDERS, Found
from hpcpipe.submit import clean as cleaning
from hpcpipe.submit.clean import clean, look
from hpcpipe.views.explain import explain, find_log


def first(x: int) -> int:
    print("first", x)
    return x


def second(x: int, by: int) -> int:
    return x * by


def make(x: int, by: int) -> Path:
    Path("made").write_text(str(x * by))
    return Path("made")


def build(lab: Lab, by: int, *, name: str = "second", folder: bool = False) -> None:
    """Make the workflow anew: an edit of ``by`` changes only its last node."""
    wf = lab.workflow = Workflow("lab", lab.workflow.folder.parent, source=__file__)
    above = wf.add(first, x=each([1, 2], axis="x"))
    wf.add(task(folder=True)(make) if folder else second, name=name, x=above, by=by)


def run_all(lab: Lab, *nodes: str) -> None:
    lab.submit()
    for node in nodes:
        for x in (1, 2):
            assert lab.run(f"{node}/{x}").status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))


@pytest.fixture
def twice(lab: Lab) -> Lab:
    """Run a workflow, edit its last node, and run it again."""
    build(lab, by=10)
    run_all(lab, "first", "second")
    build(lab, by=100)
    run_all(lab, "second")
    return lab


def files(lab: Lab) -> set[str]:
    home = lab.rundir.home
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_only_what_no_later_run_uses_is_deleted(twice: Lab) -> None:
    before = files(twice)
    old, new = sorted(
        (path.stem for path in twice.rundir.batches.glob("second-*.sh")),
        key=lambda batch: twice.rundir.script(batch).stat().st_mtime,
    )
    clean(twice.rundir, 0)
    gone = before - files(twice)
    assert {f"batches/{old}.sh", f"batches/{old}.tasks"} <= gone
    assert len([one for one in gone if one.startswith("results/second/")]) == 2
    assert not any(new in one or one.startswith(("results/first", "batches/first")) for one in gone)
    assert not any(look(twice.rundir, 0).found.values())
    run = Run(twice.rundir.folder)
    assert run.report().finished
    assert not run.report().failures
    assert run.results("first") == {"1": 1, "2": 2}
    assert set(run.results("second")) == {"1", "2"}
    assert find_log(twice.rundir, "first/1").path.name.startswith("first")
    assert any("SUCCEEDED" in line for line in explain(twice.rundir, "first/1"))
    assert not retry(twice.rundir.folder, site=twice.site)[1].prepared


def test_a_node_that_was_renamed_is_not_shown_as_failed_once_its_results_are_gone(
    lab: Lab,
) -> None:
    build(lab, by=10)
    run_all(lab, "first", "second")
    build(lab, by=10, name="other")
    run_all(lab, "other")
    clean(lab.rundir, 0)
    assert find_left_out(lab.rundir) == []


def test_a_continuation_goes_with_its_run_unless_it_may_be_queued(lab: Lab) -> None:
    build(lab, by=10)
    run_all(lab, "first", "second")
    ledger = Ledger(lab.rundir.ledger)
    instance = lab.scheduler.instance()
    one = ledger.submitting("+continue-0123abcd", 1, "t1", held=False, instance=instance)
    ledger.submitted(one, "77", "t1")
    lab.rundir.script(one.batch).write_text("#!/bin/sh\n")
    lab.workflow = Workflow("lab", lab.workflow.folder.parent, source=__file__)
    lab.workflow.add(first, name="other", x=each([1, 2], axis="x"))
    lab.submit()
    assert look(lab.rundir, 0).busy == (1,)
    ledger.cancelled([one.batch], "replaced")
    clean(lab.rundir, 0)
    assert not lab.rundir.script(one.batch).exists()
    assert lab.rundir.records() == [2]
    assert find_places(lab.rundir, ledger.read(), Instances(ledger.read())).unreadable == []


def test_what_is_left_of_continuations_that_tasks_called_for_goes(lab: Lab) -> None:
    build(lab, by=10)
    run_all(lab, "first", "second")
    old = time.time() - 9000
    for name in ("+continue-0123abcd", "+continue-4567abcd", "+continue-89abcdef"):
        script, log = lab.rundir.script(name), lab.rundir.logs / f"{name}.out"
        for path in (script, log):
            path.write_text("")
            os.utime(path, (old, old))
    os.utime(log)  # it runs
    lab.rundir.script("+continue-4567abcd").unlink()  # by a client that was killed
    clean(lab.rundir, 0)
    left = {path for path in files(lab) if "+continue" in path}
    assert left == {"batches/+continue-89abcdef.sh", "logs/+continue-89abcdef.out"}


def test_a_young_run_keeps_all_that_it_planned(twice: Lab) -> None:
    assert not any(look(twice.rundir, 3600).found.values())


@pytest.mark.parametrize("how", ["queued", "unreachable"])
def test_nothing_of_a_task_is_deleted_that_may_still_run(lab: Lab, how: str) -> None:
    build(lab, by=10)
    lab.submit()
    for x in (1, 2):
        lab.run(f"first/{x}")
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, QUEUED)
    build(lab, by=10, name="other")
    lab.submit()
    if how == "unreachable":

        def refuse(_: str) -> None:
            raise SchedulerUnavailable("no answer")

        lab.scheduler.hook = refuse
    before = files(lab)
    done = clean(lab.rundir, 0)
    assert done.busy == (1,)
    assert files(lab) >= before - {"asked.pkl"}


def test_a_file_of_the_user_stays(lab: Lab) -> None:
    build(lab, by=10, folder=True)
    run_all(lab, "first", "second")
    build(lab, by=10, name="third")
    run_all(lab, "third")
    mine = [lab.rundir.logs / "notes.txt", lab.rundir.home / "results" / "second" / "mine.pkl"]
    for path in mine:
        path.write_text("mine")
    folders = [lab.rundir.folder / "second" / f"x-{x}" for x in (1, 2)]
    assert {one.path for one in look(lab.rundir, 0).found[FOLDERS]} == {*folders}
    os.utime(folders[0] / "made", (4e9, 4e9))  # as if it was edited later
    clean(lab.rundir, 0, folders=True)
    assert all(path.exists() for path in mine)
    assert [folder.exists() for folder in folders] == [True, False]


def test_killed_anywhere_it_leaves_a_run_that_can_be_read_and_cleaned(
    twice: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0

    def delete_one(found: list[Found]) -> None:
        nonlocal kills
        if found:
            leftovers.delete(found[:1])
            kills += 1
            raise KeyboardInterrupt

    monkeypatch.setattr(cleaning, "delete", delete_one)
    with suppress(StopIteration):
        while True:
            with suppress(KeyboardInterrupt):
                clean(twice.rundir, 0)
                raise StopIteration
            report = Run(twice.rundir.folder).report()
            assert report.finished
            assert not report.failures
            assert find_left_out(twice.rundir) == []
    assert kills > 5
    assert len([*twice.rundir.batches.glob("second-*.sh")]) == 1
    assert len([*twice.rundir.plans.glob("*.plan")]) == 1


def test_the_command_counts_first_and_deletes_when_it_is_told(twice: Lab) -> None:
    before = files(twice)
    arguments = ["clean", "--older", "1s", "--run", str(twice.rundir.folder)]
    time.sleep(1.1)  # they are older than a second now
    said = CliRunner().invoke(hpcpipe, arguments)
    assert "results" in said.output
    assert "--yes" in said.output
    assert files(twice) >= before
    said = CliRunner().invoke(hpcpipe, [*arguments, "--yes"])
    assert "Deleted:" in said.output
    assert before - files(twice)
