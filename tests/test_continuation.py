"""A continuation that is killed at any step, its stand-in, and whoever else acts meanwhile."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import chdir, suppress
from pathlib import Path

import pytest
from deadly import Deadly, make_deadly, skip_naps
from fakes import HELD, LIVE, Lab

from hpcpipe import each
from hpcpipe.continuing import main, resume, resume_early, wake
from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.run import retry
from hpcpipe.status.report import make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.record import read_record
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.continuation import Continuation
from hpcpipe.worker.fallen import take_due

DONE = JobEnd("COMPLETED", None)
FAILED = JobEnd("FAILED", Reason.EXIT, 1)
DROPPED = JobEnd("CANCELLED", Reason.CANCELLED)


@pytest.fixture
def deadly(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Deadly:
    """Do something, dying at a step; see `deadly.make_deadly`."""
    skip_naps(monkeypatch)
    return make_deadly(lab, monkeypatch)


def plan(lab: Lab) -> None:
    """Fill the workflow: three tasks that are retried, and what follows each."""
    kind = each(["a", "b", "c"])
    work = lab.workflow.command("echo {kind}", name="work", kind=kind, resources={"retries": 2})
    lab.workflow.command("echo {kind}", name="next", kind=kind, after=[work])


@pytest.fixture
def restore(lab: Lab, tmp_path: Path, deadly: Deadly) -> Callable[[], None]:
    """Have one of three tasks fail while another runs, and give what puts all back to that."""
    plan(lab)
    deadly()
    fake = lab.scheduler
    assert lab.run("work/a").status == 0
    fake.says |= {"1_0": DONE, "1_1": FAILED, "2_1": DROPPED}
    jobs, says = dict(fake.jobs), dict(fake.says)
    saved = shutil.copytree(lab.rundir.folder, tmp_path / "saved")

    def restore() -> None:
        shutil.rmtree(lab.rundir.folder)
        shutil.copytree(saved, lab.rundir.folder)
        fake.jobs, fake.says = dict(jobs), dict(says)

    return restore


def run(lab: Lab, job: str) -> Callable[[], None]:
    """Return what a continuation's job does."""
    script = lab.rundir.script(lab.scheduler.jobs[job].batch).read_text()
    found = re.search(r"main\(\)' (\S+) (\S+) (\d+)$", script, re.MULTILINE)
    assert found
    one, other, nth = found.groups()
    mine = Continuation(one, other.strip("'"), int(nth))
    return lambda: resume(lab.rundir.folder, mine)


def waiting(lab: Lab) -> list[str]:
    """List the jobs of continuations that wait, the one that begins first before its stand-in."""
    return [name for name, job in lab.scheduler.live.items() if job.batch.startswith("+")]


def next_one(lab: Lab) -> str:
    """Find the continuation that waits for no other; all it waits for is taken to have ended."""
    live = waiting(lab)
    jobs = lab.scheduler.jobs
    return next(one for one in live if not {after.job for after in jobs[one].after} & {*live})


def live_tasks(lab: Lab) -> Counter[str]:
    """Count the elements of each task that the scheduler has."""
    record = Ledger(lab.rundir.ledger).read().runs
    records = [read_record(lab.rundir, run["run"]) for run in record]
    batches = {batch.id: batch for one in records for batch in one.batches.values()}
    last = records[-1].nodes
    fake = lab.scheduler
    return Counter(
        last[node].task(last[node].index(key))
        for name, job in fake.jobs.items()
        if not job.batch.startswith("+")
        for node, key, index in batches[job.batch].tasks()
        if fake.says.get(fake.element(name, index)) in LIVE
    )


def waits_for(lab: Lab, one: str, other: str) -> bool:
    """Return whether a job was submitted to begin after another."""
    return other in {after.job for after in lab.scheduler.jobs[one].after}


def go_on(lab: Lab, first: str) -> None:
    """Let the job of a continuation end, and what stands in for it do its work."""
    lab.scheduler.says[first] = DONE
    for one in waiting(lab):
        if waits_for(lab, one, first):
            run(lab, one)()
            go_on(lab, one)


TASKS = ["work/b", "work/c", "next/a", "next/b", "next/c"]


def check(lab: Lab, at: object, tasks: Sequence[str] = TASKS) -> None:
    """Hold what the scheduler has against what it should: each task once, and two that wait."""
    assert live_tasks(lab) == Counter(tasks), at
    assert HELD not in lab.scheduler.says.values(), at
    history = Ledger(lab.rundir.ledger).read()
    assert (history.adrift(), history.held()) == ([], []), at
    assert {one.job for one in history.continuations()} >= {*waiting(lab)}, at
    first, second = waiting(lab)
    jobs = lab.scheduler.jobs
    assert waits_for(lab, second, first), at
    assert {after.job for after in jobs[first].after} >= {
        name for name, job in lab.scheduler.live.items() if not job.batch.startswith("+")
    }, at
    report = make_report(lab.rundir)
    assert (report.adrift, report.failures) == (0, []), at


@pytest.mark.usefixtures("restore")
def test_whoever_looks_while_it_submits_is_not_told_that_the_run_has_ended(lab: Lab) -> None:
    for task in ("work/c", "next/a", "next/c"):
        assert lab.run(task).status == 0
    lab.scheduler.says |= {"1_2": DONE, "2_0": DONE, "2_2": DONE}
    ledger = lab.rundir.ledger
    before = ledger.read_bytes()
    run(lab, first := next_one(lab))()
    go_on(lab, first)
    after = ledger.read_bytes()
    lines = after.removeprefix(before).splitlines(keepends=True)
    assert len(lines) > 8

    def all_the_rest(_: str) -> None:  # between the look at the ledger and the one at the queue
        ledger.write_bytes(after)

    lab.scheduler.hook = all_the_rest
    for count in range(len(lines)):
        ledger.write_bytes(before + b"".join(lines[:count]))
        report = make_report(lab.rundir, fresh=True)
        assert not report.finished, lines[:count]
        assert not report.failures, lines[:count]


@pytest.mark.parametrize("typed", [False, True], ids=["alone", "and retry is typed"])
def test_killed_anywhere_its_stand_in_goes_on_and_doubles_nothing(
    lab: Lab, deadly: Deadly, restore: Callable[[], None], *, typed: bool
) -> None:
    steps = deadly(command=run(lab, first := next_one(lab)))
    go_on(lab, first)
    check(lab, "")
    assert steps > 30
    for at in range(typed, steps, 1 + typed):
        restore()
        deadly(at, run(lab, first := next_one(lab)))
        if typed:
            deadly(command=lambda: retry(lab.rundir.folder, site=lab.site))
        go_on(lab, first)
        check(lab, at)


def test_killed_again_and_again_the_last_of_its_stand_ins_goes_on(
    lab: Lab, deadly: Deadly, restore: Callable[[], None]
) -> None:
    restore()
    first = next_one(lab)
    for at in range(3, 39, 4):
        deadly(at, run(lab, first))
        lab.scheduler.says[first] = DONE
        [first] = [one for one in waiting(lab) if waits_for(lab, one, first)][:1] or [next_one(lab)]
    deadly(command=run(lab, first))
    go_on(lab, first)
    check(lab, "")


def test_a_submission_killed_anywhere_and_typed_again_has_a_continuation(
    lab: Lab, deadly: Deadly
) -> None:
    plan(lab)
    for at in range(0, deadly(), 2):
        shutil.rmtree(lab.rundir.folder)
        lab.scheduler.forget()
        deadly(at)
        deadly()
        check(lab, at, [*TASKS, "work/a"])


def test_a_run_that_was_cancelled_stays_so_whoever_was_called_for_meanwhile(
    lab: Lab, restore: Callable[[], None]
) -> None:
    restore()
    wake(lab.rundir.folder)
    cancel(lab.rundir)
    run(lab, [*lab.scheduler.jobs][-1])()  # which the ledger does not know
    assert not live_tasks(lab)
    retry(lab.rundir.folder, site=lab.site)
    assert live_tasks(lab) == Counter(TASKS)


def test_wherever_one_is_killed_that_calls_for_a_continuation_the_run_goes_on(
    lab: Lab, deadly: Deadly, restore: Callable[[], None]
) -> None:
    restore()
    for at in range(deadly(command=lambda: wake(lab.rundir.folder))):
        restore()
        before = waiting(lab)
        deadly(at, lambda: wake(lab.rundir.folder))
        deadly(command=lambda: wake(lab.rundir.folder))
        assert len(waiting(lab)) == 3, at
        [third] = {*waiting(lab)} - {*before}
        run(lab, third)()
        lab.scheduler.says[third] = DONE
        check(lab, at)


def begin(lab: Lab) -> None:
    """Do what an element of the run does that begins while a retry may be due."""
    with chdir(lab.rundir.home):
        taken = take_due()
    if taken:
        resume_early(lab.rundir.folder, f"{lab.scheduler.jobs['2'].batch}.0")


def test_an_element_that_begins_retries_what_is_due(
    lab: Lab, deadly: Deadly, restore: Callable[[], None]
) -> None:
    restore()
    lab.rundir.due.touch()
    steps = deadly(command=lambda: begin(lab))
    check(lab, "never killed")
    for at in range(steps):
        restore()
        lab.rundir.due.touch()
        deadly(at, lambda: begin(lab))
        first = next_one(lab)
        run(lab, first)()
        go_on(lab, first)
        check(lab, at)


def test_an_element_leaves_to_the_next_one_what_nobody_can_know_yet(
    lab: Lab, restore: Callable[[], None]
) -> None:
    restore()
    lab.rundir.due.touch()
    del lab.scheduler.says["1_1"]  # neither in the queue nor in the accounting
    begin(lab)
    later = lab.rundir.due.read_text()
    assert 0 < int(later) - time.time() < 5
    lab.scheduler.says["1_1"] = FAILED
    begin(lab)
    assert lab.rundir.due.read_text() == later
    lab.rundir.due.write_text("")  # another one failed
    begin(lab)
    assert not lab.rundir.due.exists()
    check(lab, "")


def test_an_element_does_not_wait_until_a_limit_lets_more_in(
    lab: Lab, restore: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(step: str) -> None:
        if step == "submit":
            raise SchedulerError("the limit of jobs is reached", passing=True)

    restore()
    lab.rundir.due.touch()
    naps = skip_naps(monkeypatch)
    lab.scheduler.hook = full
    with pytest.raises(SchedulerError):
        begin(lab)
    lab.scheduler.hook = lambda _: None
    assert not naps
    first = next_one(lab)
    run(lab, first)()
    go_on(lab, first)
    check(lab, "")


def test_an_element_waits_for_nobody_who_submits(lab: Lab, restore: Callable[[], None]) -> None:
    restore()
    lab.rundir.due.touch()
    before = {*lab.scheduler.jobs}
    with lab.rundir.lock():
        begin(lab)
    assert {*lab.scheduler.jobs} == before
    assert int(lab.rundir.due.read_text()) > time.time()


@pytest.mark.parametrize("verb", ["poll", "submit", "release", "cancel"])
def test_where_the_scheduler_does_not_answer_a_continuation_its_stand_in_goes_on(
    lab: Lab, restore: Callable[[], None], verb: str
) -> None:
    def silent(step: str) -> None:
        if step == verb:
            raise SchedulerUnavailable("slurm_load_jobs error: Unable to contact controller")

    restore()
    lab.scheduler.hook = silent
    first = next_one(lab)
    with suppress(SchedulerUnavailable):
        run(lab, first)()
    lab.scheduler.hook = lambda _: None
    go_on(lab, first)
    check(lab, verb)


def test_two_continuations_one_after_the_other_submit_once(
    lab: Lab, restore: Callable[[], None]
) -> None:
    restore()
    wake(lab.rundir.folder)
    woken = [*lab.scheduler.jobs][-1]
    first = next_one(lab)
    run(lab, first)()
    run(lab, woken)()
    lab.scheduler.says[woken] = DONE
    go_on(lab, first)
    check(lab, "")


def test_a_continuation_waits_a_while_for_a_scheduler_that_does_not_answer(
    lab: Lab, restore: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(step: str) -> None:
        if step == "poll" and len(slept) < 2:
            raise SchedulerUnavailable("slurm_load_jobs error: Unable to contact controller")

    slept: list[float] = []
    restore()
    monkeypatch.setattr("hpcpipe.continuing.sleep", slept.append)
    monkeypatch.chdir(lab.rundir.home)
    lab.scheduler.hook = silent
    first = next_one(lab)
    monkeypatch.setattr(sys, "argv", ["-c", lab.scheduler.jobs[first].batch, "", "0"])
    main()
    assert len(slept) == 2
    lab.scheduler.says[first] = DONE
    check(lab, "")
