"""That no task runs twice at once and no job of others is touched, in everyday situations."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from pickle import dumps

import pytest
from fakes import BLOCKED, CANCELLED, HELD, LIVE, QUEUED, RUNNING, Lab
from test_status import put, raising

from hpcpipe import each
from hpcpipe.cli import main
from hpcpipe.errors import (
    HpcpipeError,
    ResultError,
    SchedulerError,
    SchedulerUnavailable,
    SubmitUnclear,
    UsageError,
)
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import submit
from hpcpipe.status.report import make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.recent import find_run
from hpcpipe.store.record import PLAN_AGAIN
from hpcpipe.store.rundir import read_pickle, write_pickle
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.prepare import draft
from hpcpipe.views.explain import explain_node
from hpcpipe.views.plan import plan_json, plan_lines, submitted_lines
from hpcpipe.views.status import explain_lines, status_lines
from hpcpipe.worker.outcome import append_outcome, pack_path

ENDED = JobEnd("FAILED", Reason.EXIT, 1)


@dataclass
class Clock:
    """A clock that goes on only while somebody waits, and what happens meanwhile."""

    now: float
    meanwhile: Callable[[float], None] = lambda _: None

    def time(self) -> float:
        return self.now

    monotonic = time

    def thread_time(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(time.time())
    submitting = ("submit.hand_over", "submit.recover", "submit.refusal", "submit.submit")
    for module in ("status.in_flight", "status.report", *submitting):
        monkeypatch.setattr(f"hpcpipe.{module}.time", clock)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return clock


@pytest.fixture
def one(lab: Lab) -> Lab:
    """One task that runs."""
    lab.workflow.command("echo {n}", n=each([1]), name="work")
    lab.submit()
    lab.scheduler.says["1"] = RUNNING
    return lab


def state(lab: Lab, fresh: bool = True) -> tuple[State, Reason | None]:
    """Return the state of the only task that has not succeeded."""
    [task] = make_report(lab.rundir, fresh=fresh).tasks
    return task.state, task.reason


def jobs(lab: Lab) -> int:
    return len(lab.scheduler.jobs)


# What is live or unknown


def test_what_only_the_accounting_knows_to_run_is_unknown_and_is_not_run_again(one: Lab) -> None:
    one.scheduler.hidden = {"1"}
    assert state(one) == (State.UNKNOWN, None)
    one.submit()
    assert jobs(one) == 1


def test_an_end_that_the_accounting_is_late_to_tell_is_waited_for(one: Lab, clock: Clock) -> None:
    one.scheduler.hidden = {"1"}
    ends = clock.now + 4

    def tell(now: float) -> None:
        if now >= ends:
            one.scheduler.says["1"] = CANCELLED

    clock.meanwhile = tell
    one.submit()
    assert jobs(one) == 2


@pytest.mark.parametrize("names", [(), ("work",)])
def test_what_only_the_accounting_knows_to_run_is_cancelled(
    one: Lab, names: tuple[str, ...]
) -> None:
    one.scheduler.hidden = {"1"}
    assert cancel(one.rundir, names).tasks == 1
    assert one.scheduler.says["1"] == CANCELLED


def test_what_nothing_lists_is_waited_for_before_it_is_called_lost(one: Lab, clock: Clock) -> None:
    one.site = one.settling(60)
    del one.scheduler.says["1"]
    began = clock.now
    assert state(one) == (State.UNKNOWN, None)
    one.submit()
    assert jobs(one) == 2
    assert clock.now - began >= 60


def test_an_outcome_that_arrives_late_is_waited_for_and_counts(one: Lab, clock: Clock) -> None:
    del one.scheduler.says["1"]

    def arrive(_: float) -> None:
        if not one.find("work").good.exists():
            assert one.run("work").status == 0

    clock.meanwhile = arrive
    one.submit()
    assert jobs(one) == 1
    assert make_report(one.rundir).finished


def test_what_follows_a_task_in_doubt_is_left_for_later(lab: Lab) -> None:
    first = lab.workflow.command("echo {n}", n=each([1, 2]), name="first")
    lab.submit()
    lab.scheduler.hidden = {"1_0"}
    lab.workflow.command("echo", name="second", after=[first])
    lab.submit()
    assert [job.node for job in lab.scheduler.jobs.values()] == ["first", "second"]
    waiting = [task.name for task in make_report(lab.rundir).tasks if task.place is None]
    assert waiting == ["second/1"]
    drafted = draft(lab.workflow, lab.site)
    lines = [*plan_lines(drafted, "why")]
    assert lines[0] == "lab: 0 tasks to run, 2 in flight, 2 left for later"
    why = [line.startswith("Left for later") for line in lines].index(True)
    assert lines[why] == "Left for later, until it is known how these end: first/1"
    assert lines[why : why + 2] == [*submitted_lines(drafted, "why")][1:3]
    assert plan_json(drafted)["later"] == 2


def test_a_requeued_element_is_alive_though_its_first_start_left_an_error(
    one: Lab, clock: Clock
) -> None:
    put(one.rundir, one.find("work").bad, {"error": "killed by signal 15", "signal": 15})
    clock.now += 60
    one.scheduler.says["1"] = QUEUED
    assert state(one) == (State.QUEUED, None)
    one.scheduler.says["1"] = RUNNING
    one.find("work").claim.write_text("node7 1 1\n")
    assert state(one) == (State.RUNNING, None)
    one.submit()
    assert jobs(one) == 1


def test_a_failed_task_is_retried_when_its_job_has_left_the_queue(one: Lab, clock: Clock) -> None:
    put(one.rundir, one.find("work").bad, {"error": "exit 3", "exit": 3})
    assert state(one) == (State.FAILED, Reason.EXIT)

    def end(_: float) -> None:
        assert jobs(one) == 1
        one.scheduler.says["1"] = ENDED

    clock.meanwhile = end
    one.submit()
    assert jobs(one) == 2


def test_a_cancelled_task_that_takes_a_while_to_end_is_waited_for(one: Lab, clock: Clock) -> None:
    one.scheduler.deaf = {"cancel"}
    assert cancel(one.rundir).tasks == 1
    assert state(one) == (State.CANCELLED, Reason.CANCELLED)
    with pytest.raises(SchedulerError, match="1: cancelled, and still ending after 60 s"):
        one.submit()
    assert jobs(one) == 1

    def end(_: float) -> None:
        assert jobs(one) == 1
        one.scheduler.says["1"] = CANCELLED

    clock.meanwhile = end
    one.submit()
    assert jobs(one) == 2


def test_an_element_has_one_truth_also_when_its_first_task_ended_by_a_signal(lab: Lab) -> None:
    numbers = each(range(2), axis="n")
    lab.workflow.command("echo {n}", n=numbers, name="work", resources={"pack": 2})
    lab.submit()
    [element] = lab.scheduler.says
    lab.scheduler.says[element] = RUNNING
    pack = lab.rundir.home / pack_path(lab.find("work/0").batch, "0")
    key = lab.find("work/0").good.stem
    append_outcome(str(pack), key, False, {"error": "terminated", "signal": 15}, dumps(None))
    assert make_report(lab.rundir, fresh=True).total[State.RUNNING] == 1
    lab.scheduler.says[element] = JobEnd("FAILED", Reason.EXIT, 143)
    make_report(lab.rundir, fresh=True)
    assert make_report(lab.rundir, fresh=True).finished


# Which scheduler


def test_a_job_of_another_scheduler_is_unknown_and_its_task_is_not_run_again(one: Lab) -> None:
    one.scheduler.where = "local:elsewhere"
    [task] = make_report(one.rundir, fresh=True).tasks
    assert (task.state, task.reason) == (State.UNKNOWN, Reason.UNREACHABLE)
    assert "local:fake" in task.words
    assert "local:elsewhere" in task.words
    with pytest.raises(SchedulerUnavailable, match="Nothing was submitted"):
        one.submit()
    assert jobs(one) == 1


def test_what_was_stopped_to_be_requeued_is_not_run_again_elsewhere(one: Lab) -> None:
    put(one.rundir, one.find("work").bad, {"error": "terminated", "signal": 15})
    one.scheduler.where = "local:elsewhere"
    assert state(one) == (State.UNKNOWN, Reason.UNREACHABLE)
    with pytest.raises(SchedulerUnavailable, match="Nothing was submitted"):
        one.submit()
    assert jobs(one) == 1


def test_a_screen_names_the_scheduler_that_has_the_job_and_not_the_latest(one: Lab) -> None:
    one.scheduler.where = "local:elsewhere"
    seen = make_report(one.rundir, fresh=True)
    seen = replace(seen, record=seen.record._replace(scheduler="slurm"))
    [unasked] = [line for line in status_lines(seen) if "could not ask" in line]
    assert unasked.startswith("could not ask local: ")
    assert "  where      local job 1" in explain_lines(seen.tasks[0], seen, {})


def test_an_id_is_never_shown_to_another_scheduler(one: Lab) -> None:
    one.scheduler.where = "local:elsewhere"  # where 1 is a job of something else
    one.scheduler.hook = raising(AssertionError("it was asked"))
    for names in ((), ("work",)):
        with pytest.raises(SchedulerUnavailable, match=r"at local:fake could .*\nNothing was canc"):
            cancel(one.rundir, names)
    assert one.store.list_cancelled() == {}
    assert one.scheduler.says["1"] == RUNNING


def test_two_schedulers_of_one_run_are_each_asked_about_their_own(lab: Lab) -> None:
    lab.workflow.command("echo {n}", n=each([1]), name="work")
    lab.submit()
    lab.scheduler.says["1"] = ENDED
    put(lab.rundir, lab.find("work").bad, {"error": "exit 3", "exit": 3})
    make_report(lab.rundir, fresh=True)
    lab.scheduler.where = "local:elsewhere"
    lab.submit()
    history = Ledger(lab.rundir.ledger).read()
    assert [one.instance for one in history.submissions.values()] == [
        "local:fake",
        "local:elsewhere",
    ]
    assert state(lab) == (State.QUEUED, None)


def test_what_is_left_held_elsewhere_does_not_keep_what_is_held_here_from_going_on(
    lab: Lab,
) -> None:
    class Killed(BaseException):
        pass

    lab.workflow.command("echo {n}", n=each([1]), name="work")
    lab.scheduler.hook = raising(Killed(), "release")  # type: ignore[arg-type]
    with pytest.raises(Killed):
        lab.submit()
    lab.scheduler.hook = lambda _: None
    lab.scheduler.where = "local:elsewhere"
    lab.workflow.command("echo {n}", n=each([1]), name="more")
    lab.submit()
    assert lab.scheduler.says == {"1": HELD, "2": QUEUED}
    lab.scheduler.where = "local:fake"
    lab.submit()
    assert lab.scheduler.says == {"1": QUEUED, "2": QUEUED}


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_in_a_queue_in_vain_and_runs_elsewhere_is_cancelled(
    lab: Lab, done: bool, cancelled: bool
) -> None:
    first = lab.workflow.command("echo {n}", n=each([1]), name="first")
    lab.workflow.command("echo", name="second", after=[first])
    lab.submit()
    put(lab.rundir, lab.find("first/1").bad, {"error": "exit 3", "exit": 3})
    lab.scheduler.says |= {"1": ENDED, "2": QUEUED if cancelled else BLOCKED}
    if cancelled:
        lab.scheduler.deaf = {"cancel"}
        cancel(lab.rundir)
        lab.scheduler.deaf = set()
    lab.scheduler.where = "local:elsewhere"
    lab.submit()
    if done:
        lab.scheduler.says |= {"3": CANCELLED, "4": CANCELLED}
        put(lab.rundir, lab.find("first/1").good, {})
        put(lab.rundir, lab.find("second").good, {})
    before = {**lab.scheduler.says}
    lab.scheduler.where = "local:fake"
    lab.submit()
    assert lab.scheduler.says == {**before, "2": CANCELLED}


def test_what_is_in_a_queue_in_vain_is_cancelled_though_an_earlier_job_succeeded(lab: Lab) -> None:
    first = lab.workflow.command("echo {n}", n=each([1]), name="first")
    lab.workflow.command("echo", name="second", after=[first])
    lab.submit()
    lab.scheduler.says = {}
    succeeded = [lab.find(task).good for task in ("first/1", "second")]
    lab.submit()
    lab.scheduler.says |= {"3": ENDED, "4": BLOCKED}
    for good in succeeded:
        put(lab.rundir, good, {})
    lab.submit()
    assert lab.scheduler.says == {"3": ENDED, "4": CANCELLED}


def test_a_claim_is_ended_only_when_its_scheduler_says_so(one: Lab) -> None:
    holder = one.find("work")
    holder.claim.write_text(f"far boot pid:[1] 9 9 0 1 {holder.batch}\n")
    one.scheduler.deaf = {"cancel"}
    cancel(one.rundir)
    for says in ({}, {"2": ENDED}):  # it is submitted elsewhere, and finds the task claimed
        one.scheduler.where = "local:elsewhere"
        one.scheduler.says |= says
        one.submit()
        assert "ended" not in holder.claim.read_text()
    one.scheduler.deaf = set()
    for job in ("3", "4"):
        one.scheduler.says |= {job: ENDED}
        put(one.rundir, one.find("work").bad, {"error": "exit 3", "exit": 3})
        one.scheduler.where = "local:fake"
        one.submit()
    assert one.scheduler.says["1"] == CANCELLED
    assert holder.claim.read_text().endswith("\nended\n")


def test_what_the_queue_lists_is_known_though_the_accounting_does_not_answer(lab: Lab) -> None:
    lab.workflow.command("echo {n}", n=each([1, 2]), name="work")
    lab.submit()
    cancel(lab.rundir, ("work/1",))

    def hook(step: str) -> None:
        if step.startswith("account"):
            raise SchedulerUnavailable("Connection refused")

    lab.scheduler.hook = hook
    states = {one.label: one.state for one in draft(lab.workflow, lab.site).standing.tasks.values()}
    assert states == {"1": State.CANCELLED, "2": State.QUEUED}


# Odd answers


def odd(at: str, *commands: int) -> Callable[[str], None]:
    """Have some submit commands give an answer that proves nothing."""
    calls = count(1)

    def hook(step: str) -> None:
        if step == at and next(calls) in commands:
            raise SubmitUnclear("your account expires soon")

    return hook


@pytest.fixture
def pair(lab: Lab) -> Lab:
    first = lab.workflow.command("echo {n}", n=each([1, 2]), name="first")
    lab.workflow.command("echo", name="second", after=[first])
    return lab


@pytest.mark.parametrize("command", [1, 2])
def test_after_an_odd_answer_the_job_is_found_by_its_token(pair: Lab, command: int) -> None:
    pair.scheduler.hook = odd("submitted", command)
    pair.submit()
    assert jobs(pair) == 2
    assert {*pair.scheduler.says.values()} == {QUEUED}


def test_a_refusal_that_was_none_is_seen_by_the_token(pair: Lab) -> None:
    pair.scheduler.hook = raising(SchedulerError("Invalid qos"), "submitted")
    pair.submit()
    assert jobs(pair) == 2


def test_a_job_that_arrives_when_it_was_given_up_is_cancelled(pair: Lab) -> None:
    fake = pair.scheduler
    tokens: list[str] = []

    def late(step: str) -> None:
        if step == "submit" and not tokens:
            tokens.append(next(iter(Ledger(pair.rundir.ledger).read().submissions.values())).token)
            raise SubmitUnclear("Socket timed out")
        if step == "submit" and len(fake.jobs) == 1:
            tokens.append("arrived")
            script = next(pair.rundir.batches.glob("first-*.sh"))
            fake.hook = lambda _: None
            fake.submit(script, token=tokens[0], held=True)

    fake.hook = late
    pair.submit()
    assert tokens[1:] == ["arrived"]
    live = [job.node for job in fake.live.values()]
    assert sorted(live) == ["first", "second"]
    assert tokens[0] not in {job.token for job in fake.live.values()}


def test_a_job_that_runs_though_it_was_given_up_is_waited_for(pair: Lab, clock: Clock) -> None:
    fake = pair.scheduler
    fake.hook = odd("submit", 2)
    pair.submit()
    fake.hook = lambda _: None
    [late] = [
        one for s in Ledger(pair.rundir.ledger).read().submissions.values() for one in s.given_up
    ]
    fake.submit(next(pair.rundir.batches.glob("second-*.sh")), token=late.token)
    fake.says |= {"2_0": ENDED, "3_0": RUNNING}  # the second found the task claimed by the third
    fake.deaf = {"cancel"}
    with pytest.raises(SchedulerError, match="3_0 3_1: cancelled, and still ending"):
        pair.submit()
    assert jobs(pair) == 3
    fake.deaf = set()
    clock.meanwhile = lambda _: fake.cancel(["3"])
    pair.submit()
    assert fake.says["3_0"] == CANCELLED
    assert jobs(pair) == 4


def test_a_job_that_was_given_up_is_looked_for_by_the_next_client(pair: Lab, clock: Clock) -> None:
    fake = pair.scheduler
    fake.hook = odd("submit", 1)
    pair.submit()
    fake.hook = lambda _: None
    [late] = [
        one for s in Ledger(pair.rundir.ledger).read().submissions.values() for one in s.given_up
    ]
    fake.submit(next(pair.rundir.batches.glob("first-*.sh")), token=late.token, held=True)
    clock.now += 100_000
    cancel(pair.rundir)
    assert fake.live == {}


def test_looking_for_a_job_is_not_given_up_when_the_question_fails(pair: Lab) -> None:
    calls = count(1)

    def away(step: str) -> None:
        if step == "submit" and next(calls) == 1:
            raise SchedulerUnavailable("no answer")
        if step == "find" and next(calls) < 5:
            raise SchedulerUnavailable("no answer")

    pair.scheduler.hook = away
    pair.submit()
    assert jobs(pair) == 2


def test_what_stays_in_the_queue_after_a_refusal_is_said(pair: Lab) -> None:
    calls = count(1)

    def refuse(step: str) -> None:
        if step == "submit" and next(calls) == 2:
            raise SchedulerError("Invalid qos")

    pair.scheduler.hook = refuse
    pair.scheduler.deaf = {"cancel"}
    with pytest.raises(SchedulerError, match="Still in the queue, though cancelled: 1"):
        pair.submit()
    pair.scheduler.deaf = set()
    assert cancel(pair.rundir).tasks == 2
    assert not pair.scheduler.live


def test_cancel_adopts_what_a_killed_client_left(pair: Lab) -> None:
    class Killed(BaseException):
        pass

    def die(step: str) -> None:
        if step == "submitted":
            raise Killed

    pair.scheduler.hook = die
    with pytest.raises(Killed):
        pair.submit()
    pair.scheduler.hook = lambda _: None
    assert cancel(pair.rundir).tasks == 2
    assert not pair.scheduler.live


def test_what_a_release_did_not_release_is_seen_and_released_again(one: Lab) -> None:
    fake = one.scheduler
    one.workflow.command("echo", name="more")
    fake.deaf = {"release"}
    one.submit()
    assert make_report(one.rundir, fresh=True).adrift == 1
    fake.deaf = set()
    one.submit()
    assert jobs(one) == 2
    assert fake.says["2"] == QUEUED
    assert make_report(one.rundir, fresh=True).adrift == 0


# Other edges


def test_what_waits_for_a_task_that_runs_again_is_handed_over_again(lab: Lab) -> None:
    first = lab.workflow.command("echo {n}", n=each([1, 2, 3]), name="first")
    lab.workflow.command("echo", name="gather", after=[first.gather()])
    lab.submit()
    fake = lab.scheduler
    fake.says |= {"1_0": ENDED, "1_1": RUNNING, "1_2": RUNNING}
    put(lab.rundir, lab.find("first/1").bad, {"error": "exit 3", "exit": 3})
    lab.submit()
    again, gather = [job for name, job in fake.jobs.items() if name in ("3", "4")]
    assert (again.node, gather.node) == ("first", "gather")
    assert {after.job for after in gather.after} == {"1", "3"}
    assert fake.says["2"] == CANCELLED
    assert [job.node for job in fake.live.values()].count("gather") == 1


def test_running_tasks_of_an_older_version_are_cancelled_only_when_asked(one: Lab) -> None:
    one.workflow.nodes.clear()
    one.workflow.command("echo -n {n}", n=each([1]), name="work")
    drafted = draft(one.workflow, one.site)
    said = "Running, of an earlier version: work/1. Submitting needs --replace."
    assert said in plan_lines(drafted, "why")
    assert plan_json(drafted)["needs_replace"] == ["work/1"]
    with pytest.raises(UsageError, match=r"work/1: runs now.*--replace"):
        one.submit()
    assert (jobs(one), one.scheduler.says["1"]) == (1, RUNNING)
    submit(one.workflow, site=one.site, replace=True)
    assert one.scheduler.says["1"] == CANCELLED
    assert [job.node for job in one.scheduler.live.values()] == ["work"]


def test_a_task_that_failed_and_was_edited_at_once_is_submitted_when_its_job_has_left(
    one: Lab,
) -> None:
    put(one.rundir, one.find("work/1").bad, {"error": "exit 3", "exit": 3})
    looks = 0

    def leave(step: str) -> None:
        nonlocal looks
        looks += step == "poll"
        if looks == 3:
            one.scheduler.says["1"] = JobEnd("FAILED", Reason.EXIT, 3)

    one.scheduler.hook = leave
    one.workflow.nodes.clear()
    one.workflow.command("echo -n {n}", n=each([1]), name="work")
    one.submit()
    assert jobs(one) == 2


def test_a_refused_first_submission_is_the_run_that_is_looked_at_next(lab: Lab) -> None:
    lab.workflow.command("echo", name="work")
    lab.scheduler.hook = raising(SchedulerError("Invalid account"), "submit")
    with pytest.raises(SchedulerError, match=r"Type: hpcpipe retry --account lab$"):
        lab.submit()
    assert find_run(None) == lab.rundir.folder


def test_commands_on_a_screen_name_the_run_where_they_would_be_about_another(
    one: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted = draft(one.workflow, one.site)  # nothing is left to submit
    one.scheduler.says["1"] = JobEnd("NODE_FAIL", Reason.NODE)

    def shown() -> list[str]:
        seen = make_report(one.rundir, fresh=True)
        lines = (*status_lines(seen), *explain_lines(seen.tasks[0], seen, {}))
        lines += (*submitted_lines(drafted, "why"), *explain_node(one.rundir, "work"))
        return [line for line in lines if "hpcpipe " in line]

    assert next(iter(submitted_lines(drafted, "why"))) == "lab: 0 tasks to run, 1 in flight."
    assert not any("--run" in line for line in shown())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for line in shown():
        assert line.count("hpcpipe ") == line.count(f" --run {one.rundir.folder}"), line


@pytest.mark.parametrize("native", ["CANCELLED", "CANCELLED by 4711"])
def test_who_cancelled_dependents_of_what_succeeded_is_explained(pair: Lab, native: str) -> None:
    pair.submit()
    assert pair.run("first/1").status == 0
    end = JobEnd(native, Reason.CANCELLED)
    pair.scheduler.says |= {"1_0": JobEnd("TIMEOUT", Reason.TIME), "2_0": end}
    tasks = {task.name: task for task in make_report(pair.rundir, fresh=True).tasks}
    assert tasks["second/1"].state is State.CANCELLED
    by_itself = "a job of that may have failed afterwards" in tasks["second/1"].words
    assert by_itself == (native == "CANCELLED")


# Damaged files and wrong clocks


def test_a_run_survives_the_loss_of_an_old_record(one: Lab) -> None:
    one.workflow.command("echo", name="more")
    one.submit()
    (one.rundir.plans / "1.pkl").write_bytes(b"\x80")
    report = make_report(one.rundir, fresh=True)
    assert report.total == {State.WAITING: 1, State.QUEUED: 1}
    with pytest.raises(HpcpipeError, match=r"its jobs 1 are still in the queue.*hpcpipe cancel"):
        one.submit()
    assert cancel(one.rundir).tasks == 2
    assert not one.scheduler.live
    one.submit()
    assert [job.node for job in one.scheduler.live.values()] == ["work", "more"]


def test_cancel_suggests_no_retry_where_the_record_is_lost(
    one: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    (one.rundir.plans / "1.pkl").unlink()
    with pytest.raises(SystemExit):
        main(["cancel", "--yes", "--run", str(one.rundir.folder)])
    assert capsys.readouterr().out == f"1 task cancelled.\n{PLAN_AGAIN}\n"
    one.submit()
    assert jobs(one) == 2


def test_a_run_of_no_jobs_whose_plan_is_lost_is_told_with_what_to_do(one: Lab) -> None:
    assert one.run("work").status == 0
    one.scheduler.says["1"] = ENDED
    (one.rundir.plans / "1.pkl").unlink()
    one.submit()
    for plan in one.rundir.plans.glob("*.plan"):
        plan.unlink()
    with pytest.raises(ResultError, match=rf"\.plan: No such file or directory\n{PLAN_AGAIN}"):
        make_report(one.rundir)
    one.submit()
    assert make_report(one.rundir).total == {State.DONE: 1}
    assert jobs(one) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]\n{}\n", b"\xff\xfe\n"])
def test_a_ledger_of_nothing_readable_is_told_and_not_a_traceback(one: Lab, damage: bytes) -> None:
    one.rundir.ledger.write_bytes(damage)
    with pytest.raises(HpcpipeError, match="nothing was submitted"):
        make_report(one.rundir)


def test_any_line_of_the_ledger_may_be_lost_and_nothing_runs_twice(pair: Lab) -> None:
    pair.submit()
    whole = pair.rundir.ledger.read_bytes().splitlines(keepends=True)
    live = dict(pair.scheduler.says)
    for lost in range(len(whole)):
        pair.rundir.ledger.write_bytes(b"".join((*whole[:lost], b"#\n", *whole[lost + 1 :])))
        try:
            pair.submit()
        except HpcpipeError:
            continue
        now = [job.node for job in pair.scheduler.live.values()]
        assert sorted(now) == ["first", "second"], whole[lost]
        pair.scheduler.says = dict(live)


def test_an_answer_from_the_future_is_out_of_date(one: Lab) -> None:
    make_report(one.rundir, fresh=True)
    asked, *rest = read_pickle(one.rundir.asked)
    write_pickle(one.rundir.asked, (asked + 600, *rest))
    one.scheduler.says["1"] = JobEnd("NODE_FAIL", Reason.NODE)
    assert state(one, fresh=False) == (State.FAILED, Reason.NODE)


def test_a_client_that_was_killed_in_the_future_is_not_waited_for(pair: Lab, clock: Clock) -> None:
    class Killed(BaseException):
        pass

    clock.now += 600  # its host's clock
    pair.scheduler.hook = raising(Killed(), "submit")  # type: ignore[arg-type]
    with pytest.raises(Killed):
        pair.submit()
    pair.scheduler.hook = lambda _: None
    clock.now -= 600
    began = clock.now
    pair.submit()
    assert clock.now - began < 10
    assert [job.node for job in pair.scheduler.live.values()] == ["first", "second"]
    assert {*pair.scheduler.says.values()} <= {*LIVE}
