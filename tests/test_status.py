"""What is concluded of a task from the ledger, the scheduler's words, and what lies on disk."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import dumps
from typing import Any
from unittest.mock import Mock

import pytest
from fakes import CANCELLED, HELD, QUEUED, RUNNING, FakeScheduler, Lab

from hpcpipe import each
from hpcpipe.errors import SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import JobEnd, JobStatus, Reason, State
from hpcpipe.status.diagnose import DAMAGED
from hpcpipe.status.poll import next_look
from hpcpipe.status.report import Report, make_report
from hpcpipe.status.state import Task
from hpcpipe.store.ledger import BY_US
from hpcpipe.store.rundir import RunDir
from hpcpipe.submit.cancel import cancel
from hpcpipe.worker.claim import sign
from hpcpipe.worker.outcome import write_outcome

POLL, SETTLE = 10, 30  # seconds
KIB = 1024  # in a MiB


@dataclass(frozen=True)
class Facts:
    """What is known of a task that asked for 1000 MB and 10 min."""

    says: JobStatus | JobEnd | None = None  # the scheduler, if it can be asked
    outcome: Mapping[str, Any] | None = None  # one that went wrong
    later: float = 0  # seconds since it was first asked
    down: bool = False
    ledger: str = ""


def end(native: str, reason: Reason | None, exit_code: int | None = None, **more: Any) -> JobEnd:
    return JobEnd(native, reason, exit_code, host="node7", **more)


def killed(signal: int, **more: Any) -> dict[str, Any]:
    return {"error": f"killed by signal {signal}", "signal": signal, **more}


DONE, FAILED, UNKNOWN, LOST = State.DONE, State.FAILED, State.UNKNOWN, State.LOST
OOM = end("OUT_OF_MEMORY", Reason.MEMORY, max_memory=990)
COMPLETED = end("COMPLETED", None, 0)
TERMINATED = {"error": "terminated", "signal": 15, "terminated": True}
DOUBT = "ended by signal 9; the accounting may say why"
LATE = "has left the queue; its outcome may be on its way"

RULES: dict[str, tuple[Facts, State, Reason | None, str]] = {
    # The queue tells liveness.
    "queued": (Facts(QUEUED), State.QUEUED, None, "Priority"),
    "held": (Facts(HELD), State.HELD, None, "JobHeldUser"),
    "running": (Facts(RUNNING), State.RUNNING, None, ""),
    "a word never seen": (Facts(JobStatus(UNKNOWN, "WEIRD", "?")), UNKNOWN, None, "?"),
    "one that can never start": (
        Facts(JobStatus(FAILED, "Eqw", "can't chdir")), FAILED, Reason.START, "Eqw: can't chdir"),
    # The file tells the outcome.
    "no more memory to be had": (
        Facts(None, {"error": "MemoryError"}), FAILED, Reason.MEMORY,
        "MemoryError at its limit of 1000 MB"),
    "an exception": (Facts(None, {"error": "KeyError: 1"}), FAILED, Reason.ERROR, "KeyError: 1"),
    "an exit code": (Facts(None, {"error": "exit 3", "exit": 3}), FAILED, Reason.EXIT, "exit 3"),
    "a fault": (Facts(None, killed(11)), FAILED, Reason.SIGNAL, "killed by signal 11"),
    "an outcome cut short": (
        Facts(None, {}), FAILED, Reason.DAMAGED, f"it failed, and {DAMAGED[2]}"),
    "an outcome, and still running": (
        Facts(RUNNING, {"error": "exit 3", "exit": 3}), FAILED, Reason.EXIT, "exit 3"),
    # A signal tells an end, and the accounting whose.
    "killed": (Facts(None, killed(9)), UNKNOWN, None, DOUBT),
    "killed, and no more is known": (
        Facts(None, killed(9, max_memory=5 * KIB), SETTLE), FAILED, Reason.SIGNAL,
        "killed by signal 9"),
    "killed, and nobody can be asked": (
        Facts(None, killed(9), down=True), UNKNOWN, Reason.UNREACHABLE,
        "squeue: no answer"),
    "out of memory by the accounting": (
        Facts(OOM, killed(9, max_memory=5 * KIB)), FAILED, Reason.MEMORY, "used 990 MB of 1000 MB"),
    "out of memory by its own measure": (
        Facts(None, killed(9, max_memory=950 * KIB), SETTLE), FAILED, Reason.MEMORY,
        "used 950 MB of 1000 MB"),
    "out of memory by its own measure, and terminated": (
        Facts(None, {**TERMINATED, "max_memory": 4080 * KIB, "wall": 598.0}, SETTLE), FAILED,
        Reason.MEMORY, "used 4 GB of 1000 MB"),
    "time limit by the accounting": (
        Facts(end("TIMEOUT", Reason.TIME), TERMINATED), FAILED, Reason.TIME, "TIMEOUT on node7"),
    "time limit by its own clock": (
        Facts(None, {**TERMINATED, "wall": 598.0}, SETTLE), FAILED, Reason.TIME, "terminated"),
    "time limit by its own clock, and signalled along": (
        Facts(None, killed(15, wall=598.0), SETTLE), FAILED, Reason.TIME, "killed by signal 15"),
    "terminated, and no more is known": (
        Facts(None, {**TERMINATED, "wall": 5.0}, SETTLE), FAILED, Reason.SIGNAL, "terminated"),
    "preempted while it ran": (
        Facts(JobEnd("PREEMPTED", Reason.PREEMPTED), TERMINATED), FAILED, Reason.PREEMPTED,
        "PREEMPTED"),
    "scancelled while it ran": (
        Facts(CANCELLED, TERMINATED), State.CANCELLED, Reason.CANCELLED, CANCELLED.native),
    "cancelled by us while it ran": (
        Facts(None, TERMINATED, ledger="cancelled"), State.CANCELLED, Reason.CANCELLED,
        "by hpcpipe cancel"),
    # Without an outcome, the accounting tells.
    "no outcome: out of memory": (Facts(OOM), FAILED, Reason.MEMORY, "used 990 MB of 1000 MB"),
    "no outcome: out of memory unmeasured": (
        Facts(end("OUT_OF_MEMORY", Reason.MEMORY)), FAILED, Reason.MEMORY,
        "killed at its limit of 1000 MB"),
    "no outcome: time limit": (
        Facts(end("TIMEOUT", Reason.TIME)), FAILED, Reason.TIME, "TIMEOUT on node7"),
    "no outcome: node failure": (
        Facts(end("NODE_FAIL", Reason.NODE)), FAILED, Reason.NODE, "NODE_FAIL on node7"),
    "no outcome: cancelled": (
        Facts(CANCELLED), State.CANCELLED, Reason.CANCELLED, CANCELLED.native),
    "no outcome: exit code": (
        Facts(end("FAILED", Reason.EXIT, 2)), FAILED, Reason.EXIT,
        "exit 2, without an outcome; see its log"),
    "no outcome: upstream failed": (
        Facts(end("FAILED", Reason.EXIT, 86)), State.BLOCKED, Reason.UPSTREAM,
        "an upstream had no good outcome when it started"),
    "no outcome: claimed": (
        Facts(end("FAILED", Reason.EXIT, 87)), FAILED, Reason.EXIT,
        "another process had claimed the task; see its log"),
    "no outcome: other Python": (
        Facts(end("FAILED", Reason.EXIT, 88)), FAILED, Reason.START,
        "its Python is not on the node; see its log"),
    "no outcome: lost by the scheduler": (
        Facts(end("LOST", Reason.LOST)), LOST, Reason.LOST, "LOST"),
    "no outcome: ended well": (Facts(COMPLETED), UNKNOWN, None, LATE),
    "no outcome: ended well long ago": (
        Facts(COMPLETED, None, SETTLE), LOST, Reason.LOST,
        "the scheduler says COMPLETED, but no outcome is there"),
    # Silence tells nothing.
    "gone": (Facts(), UNKNOWN, None, LATE),
    "gone a while": (Facts(later=SETTLE - 1), UNKNOWN, None, LATE),
    "gone long ago": (
        Facts(later=SETTLE), LOST, Reason.LOST, "not in the queue, no outcome, no accounting"),
    "nobody can be asked": (
        Facts(QUEUED, down=True), UNKNOWN, Reason.UNREACHABLE, "squeue: no answer"),
    # The ledger tells what was never to run.
    "refused": (Facts(ledger="refused"), FAILED, Reason.REFUSED, "Invalid qos"),
    "cancelled by us": (
        Facts(QUEUED, ledger="cancelled"), State.CANCELLED, Reason.CANCELLED, "by hpcpipe cancel"),
    "interrupted": (
        Facts(QUEUED, ledger="no id"), UNKNOWN, None, "its submission was interrupted"),
    "interrupted before it began": (
        Facts(QUEUED, ledger="no intent"), State.WAITING, None, "not submitted"),
}  # fmt: skip


def report_of(lab: Lab, facts: Facts) -> Report:
    """Make the facts true, and ask what is concluded."""
    command = lab.workflow.command("true", name="work", resources={"memory": 1000, "time": "10m"})
    assert command.size == 1
    fake = lab.scheduler
    if facts.ledger == "refused":
        fake.hook = raising(SchedulerError("Invalid qos"), "submit")
        with pytest.raises(SchedulerError):
            lab.submit()
        return make_report(lab.rundir)
    run = lab.submit()
    element = lab.find("work")
    if facts.ledger == "cancelled":
        run.cancel()
    elif facts.ledger:
        lines = lab.rundir.ledger.read_text().splitlines(keepends=True)
        lab.rundir.ledger.write_text("".join(lines[: 2 if facts.ledger == "no id" else 1]))
    if facts.outcome:
        put(lab.rundir, element.bad, facts.outcome)
    elif facts.outcome is not None:
        element.bad.write_bytes(b"\x80\x04}")
        element.bad.chmod(0o600)
    fake.says.clear()
    if facts.says is not None:
        fake.says[element.job] = facts.says
    if facts.down:
        fake.hook = raising(SchedulerUnavailable("squeue: no answer"))
    now = time.time()
    first = make_report(lab.rundir, now=now)
    return make_report(lab.rundir, now=now + facts.later, fresh=True) if facts.later else first


def put(rundir: RunDir, place: Path, outcome: Mapping[str, Any]) -> None:
    """Write an outcome."""
    part = rundir.home / "results" / "part"
    key = place.name.partition(".")[0]
    write_outcome(str(part), str(place), key, False, {"ok": False, **outcome}, dumps(None))


def raising(error: Exception, at: str = "") -> Callable[[str], None]:
    """Make a hook that raises, at one step or at all."""

    def hook(step: str) -> None:
        if step == at or not at:
            raise error

    return hook


@pytest.fixture(autouse=True)
def _limits(lab: Lab) -> None:
    lab.site = lab.settling(SETTLE)


@pytest.mark.parametrize(("facts", "state", "reason", "words"), RULES.values(), ids=RULES)
def test_the_state_follows_from_the_facts(
    lab: Lab, facts: Facts, state: State, reason: Reason | None, words: str
) -> None:
    [task] = report_of(lab, facts).tasks
    said = task.words.partition(" (log: ")[0]  # of one that could not be started
    assert (task.state, task.reason, said) == (state, reason, words)


def test_an_accounting_that_lags_is_awaited_though_files_settle_sooner(lab: Lab) -> None:
    lab.site = lab.settling(2)
    facts = Facts(None, killed(15), later=SETTLE - 1)
    assert report_of(lab, facts).tasks[0].state is UNKNOWN


# Several tasks


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """Three aligned nodes over two subjects, and one that needs all of the last."""
    first = lab.workflow.command("echo {s}", s=each(["A", "B"]), name="first")
    second = lab.workflow.command("echo", name="second", after=[first])
    third = lab.workflow.command("echo", name="third", after=[second])
    lab.workflow.command("echo", name="last", after=[third.gather()])
    lab.submit()
    return lab


def named(tasks: list[Task]) -> dict[str, tuple[State, str]]:
    return {task.name: (task.state, task.words) for task in tasks}


def test_what_needs_a_failed_task_is_blocked_all_the_way_down(chain: Lab) -> None:
    put(chain.rundir, chain.find("first/A").bad, {"error": "exit 3", "exit": 3})
    chain.scheduler.says["1_0"] = RUNNING  # about to end
    chain.scheduler.says |= dict.fromkeys(("2_0", "3_0", "4"), CANCELLED)
    report = make_report(chain.rundir)
    assert named(report.failures) == {
        "first/A": (State.FAILED, "exit 3"),
        "second/A": (State.BLOCKED, "waits for first/A"),
        "third/A": (State.BLOCKED, "waits for second/A"),
        "last": (State.BLOCKED, "waits for third/A"),
    }
    assert report.counts["second"] == {State.BLOCKED: 1, State.QUEUED: 1}
    assert not report.finished


def test_a_job_that_can_never_start_is_blocked_though_it_is_in_the_queue(chain: Lab) -> None:
    put(chain.rundir, chain.find("first/A").bad, {"error": "exit 3", "exit": 3})
    chain.scheduler.says["1_0"] = RUNNING  # about to end
    never = JobStatus(State.BLOCKED, "PENDING", "DependencyNeverSatisfied")
    chain.scheduler.says["2_0"] = never
    assert named(make_report(chain.rundir).failures)["second/A"][0] is State.BLOCKED


def test_a_task_mended_by_a_second_submission_is_judged_by_that_alone(chain: Lab) -> None:
    put(chain.rundir, chain.find("first/A").bad, {"error": "exit 3", "exit": 3})
    chain.scheduler.says["1_0"] = RUNNING  # about to end
    chain.scheduler.cancel(["1", "2", "3", "4"])
    chain.submit()
    report = make_report(chain.rundir)
    assert report.failures == []
    assert report.tasks[0].place is not None
    assert (report.tasks[0].name, report.tasks[0].place.attempt) == ("first/A", 2)


def test_outcomes_good_and_bad_are_counted_by_node(chain: Lab) -> None:
    assert [chain.run(f"first/{s}").status for s in "AB"] == [0, 0]
    assert chain.run("second/A").status == 0
    report = make_report(chain.rundir)
    assert report.counts["first"] == {DONE: 2}
    assert report.counts["second"] == {DONE: 1, State.QUEUED: 1}
    assert report.total == {DONE: 3, State.QUEUED: 4}


# Asking the scheduler


def test_when_all_is_done_the_scheduler_is_not_asked(chain: Lab) -> None:
    for name in ("first/A", "first/B", "second/A", "second/B", "third/A", "third/B", "last"):
        assert chain.run(name).status == 0
    chain.scheduler.hook = raising(AssertionError("it was asked"))
    report = make_report(chain.rundir, fresh=True)
    assert (report.finished, report.failures, report.asked) == (True, [], None)


def asked(fake: FakeScheduler) -> list[str]:
    """Give the questions since this was last called, without their times."""
    calls = [call.partition(" ")[0] for call in fake.calls]
    fake.calls.clear()
    return calls


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_it_is_asked_once_an_interval_whoever_asks(chain: Lab, down: bool) -> None:
    fake, now = chain.scheduler, time.time()
    asked(fake)
    if down:
        fake.hook = raising(SchedulerUnavailable("squeue: no answer"))
    one, other = RunDir(chain.rundir.folder), RunDir(chain.rundir.folder)
    before = make_report(one, now=now)
    assert asked(fake) == ["poll"]
    fake.says |= dict.fromkeys(fake.says, RUNNING)
    again = make_report(other, now=now + POLL - 1)
    assert asked(fake) == []
    assert (again.total, again.trouble, again.asked) == (before.total, before.trouble, now)
    make_report(other, now=now + POLL)
    assert asked(fake) == ["poll"]
    make_report(one, now=now + POLL, fresh=True)
    assert asked(fake) == ["poll"]


def test_while_one_client_asks_the_others_take_the_answer_before(chain: Lab) -> None:
    fake, now = chain.scheduler, time.time()
    before = make_report(chain.rundir, now=now)
    nested: list[object] = []

    def look(step: str) -> None:
        fake.hook = lambda _: None
        if step == "poll":
            nested.append(make_report(RunDir(chain.rundir.folder), now=now + 2 * POLL).asked)

    fake.hook = look
    asked(fake)
    after = make_report(chain.rundir, now=now + 2 * POLL)
    assert nested == [before.asked]
    assert (asked(fake), after.asked) == (["poll"], now + 2 * POLL)
    assert not chain.rundir.asking.exists()


def test_a_client_that_was_killed_while_it_asked_keeps_nobody_from_asking(chain: Lab) -> None:
    fake, now = chain.scheduler, time.time()
    make_report(chain.rundir, now=now)
    asked(fake)
    chain.rundir.asking.touch()
    make_report(chain.rundir, now=now + 2 * POLL)
    assert asked(fake) == []  # it may still be at it
    os.utime(chain.rundir.asking, (now - 1000, now - 1000))
    make_report(chain.rundir, now=now + 2 * POLL)
    assert asked(fake) == ["poll"]
    # Of a process of this host it is known at once.
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = sign().split(" ")
    chain.rundir.asking.write_text(" ".join([*mine[:3], str(ended.pid), *mine[4:]]))
    make_report(chain.rundir, now=now + 4 * POLL)
    assert asked(fake) == ["poll"]
    chain.rundir.asking.write_text(" ".join(mine))
    make_report(chain.rundir, now=now + 6 * POLL)
    assert asked(fake) == []


def test_a_client_that_ends_before_it_can_sign_keeps_nobody_from_asking(
    chain: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, now = chain.scheduler, time.time()
    with monkeypatch.context() as patch:
        patch.setattr("hpcpipe.store.rundir.os.write", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_report(chain.rundir, now=now)
    asked(fake)
    make_report(chain.rundir, now=now)
    assert asked(fake) == ["poll"]


def test_the_next_look_is_put_off_by_work_and_not_by_waiting() -> None:
    began = time.thread_time()
    subprocess.run(["sleep", "0.3"], check=True)  # as a scheduler's command that is slow to answer
    assert next_look(began) < 2
    assert next_look(time.thread_time() - 1) >= 10


def test_an_answer_that_is_coming_is_waited_for_where_there_is_none(
    chain: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, now = chain.scheduler, time.time()
    make_report(chain.rundir, now=now)
    answer = chain.rundir.asked.read_bytes()
    chain.rundir.asked.unlink()
    chain.rundir.asking.touch()
    asked(fake)

    def arrive(_: float) -> None:
        chain.rundir.asked.write_bytes(answer)

    monkeypatch.setattr("hpcpipe.status.poll.time.sleep", arrive)
    assert make_report(chain.rundir, now=now + 1).asked == now
    assert asked(fake) == []


def test_one_question_is_enough_for_all_and_another_for_those_that_left(chain: Lab) -> None:
    fake = chain.scheduler
    asked(fake)
    fake.says["1_0"] = end("FAILED", Reason.EXIT, 1)
    del fake.says["1_1"]
    make_report(chain.rundir)
    assert asked(fake) == ["poll", "account"]


def test_what_was_once_told_is_remembered_though_the_scheduler_forgets(chain: Lab) -> None:
    fake, now = chain.scheduler, time.time()
    fake.says["1_0"] = end("NODE_FAIL", Reason.NODE)
    make_report(chain.rundir, now=now)
    del fake.says["1_0"]
    task = make_report(chain.rundir, now=now + 1000).failures[0]
    assert (task.name, task.reason, task.words) == ("first/A", Reason.NODE, "NODE_FAIL on node7")


def test_a_new_submission_makes_the_last_answer_old(chain: Lab) -> None:
    make_report(chain.rundir)
    chain.workflow.command("echo", name="more")
    chain.submit()
    chain.scheduler.calls.clear()
    assert make_report(chain.rundir).total == {State.QUEUED: 8}
    assert chain.scheduler.calls == ["poll"]


def test_an_outcome_written_while_the_scheduler_is_asked_counts(chain: Lab) -> None:
    def finish(step: str) -> None:
        if step == "poll":
            assert chain.run("first/A").status == 0
            del chain.scheduler.says["1_0"]

    chain.scheduler.hook = finish
    assert make_report(chain.rundir).counts["first"] == {DONE: 1, State.QUEUED: 1}


def test_doubts_about_signals_wait_for_the_interval_while_others_run_but_not_at_the_end(
    lab: Lab,
) -> None:
    lab.workflow.command("echo {n}", n=each([1, 2]), name="work")
    lab.submit()
    fake, now = lab.scheduler, time.time()
    make_report(lab.rundir, now=now)
    asked(fake)
    put(lab.rundir, lab.find("work/1").bad, killed(9))
    fake.says["1_0"] = OOM
    assert make_report(lab.rundir, now=now + 1).tasks[0].state is UNKNOWN
    assert asked(fake) == []
    put(lab.rundir, lab.find("work/2").bad, killed(9))
    del fake.says["1_1"]
    report = make_report(lab.rundir, now=now + 2)
    assert asked(fake) == ["poll", "account"]  # has it left the queue? how did it end?
    assert [task.reason for task in report.tasks] == [Reason.MEMORY, None]
    make_report(lab.rundir, now=now + 3)
    assert asked(fake) == []
    report = make_report(lab.rundir, now=now + 2 + SETTLE)
    assert [task.reason for task in report.tasks] == [Reason.MEMORY, Reason.SIGNAL]
    assert asked(fake) == ["account"]


def test_a_cancelled_run_is_over_at_once(chain: Lab) -> None:
    assert chain.run("first/A").status == 0
    chain.scheduler.says |= {"1_0": COMPLETED, "1_1": RUNNING}
    run = chain.submit()
    assert run.cancel() == 6
    chain.scheduler.hook = raising(AssertionError("it was asked"))
    report = make_report(chain.rundir)
    assert (report.finished, report.total) == (True, {DONE: 1, State.CANCELLED: 6})


def test_one_cancelled_task_takes_only_its_dependents_along(chain: Lab) -> None:
    run = chain.submit()
    assert run.cancel(("first/B",)) == 1
    report = make_report(chain.rundir)
    assert {task.name: task.state for task in report.tasks if task.label != "A"} == {
        "first/B": State.CANCELLED,
        "second/B": State.QUEUED,  # until the scheduler has noticed
        "third/B": State.QUEUED,
        "last": State.QUEUED,
    }
    del chain.scheduler.says["1_1"]  # as if nobody had ever heard of it
    later = make_report(chain.rundir, fresh=True, now=time.time() + SETTLE + 1)
    assert {task.name: task.reason for task in later.tasks}["first/B"] is Reason.CANCELLED


def test_what_shares_an_element_with_a_cancelled_task_is_told_to_go_along(lab: Lab) -> None:
    numbers = each(range(4), axis="n")
    packed = lab.workflow.command("echo {n}", n=numbers, name="packed", resources={"pack": 2})
    assert packed.size == 4
    lab.submit()
    assert cancel(lab.rundir, ("packed/1",)) == (2, ("packed/0",))
    cancelled = [task.label for task in make_report(lab.rundir).failures]
    assert cancelled == ["0", "1"]
    assert cancel(lab.rundir) == (2, ())
    # Those that had been cancelled before still are, by us.
    words = {task.words for task in make_report(lab.rundir).failures}
    assert words == {BY_US}


def test_what_is_still_in_the_queue_is_cancelled_though_its_task_is_done(lab: Lab) -> None:
    lab.workflow.command("true", name="work")
    lab.submit()
    assert lab.run("work").status == 0
    assert cancel(lab.rundir).tasks == 1
    assert lab.scheduler.says["1"] == CANCELLED


def test_what_can_never_start_is_taken_out_of_the_queue(chain: Lab) -> None:
    chain.submit()
    chain.scheduler.says["1_1"] = JobStatus(FAILED, "Eqw", "can't chdir")
    make_report(chain.rundir, fresh=True)
    assert chain.scheduler.says["1_1"] == CANCELLED
    report = make_report(chain.rundir, fresh=True)
    assert {task.name: task.reason for task in report.tasks}["first/B"] is Reason.START


def test_a_task_known_to_be_done_is_good_though_it_left_nothing(lab: Lab) -> None:
    node = lab.workflow.add(str, name="node", object=each([1, 2]))
    lab.workflow.nodes["node"] = replace(node, done={0})
    lab.submit()
    report = make_report(lab.rundir)
    assert report.counts["node"][State.DONE] == 1
    assert [task.name for task in report.tasks] == ["node/2"]
