"""Submitting: in which order things happen, and that no death or refusal doubles or loses any."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from deadly import Deadly, Killed, make_deadly, skip_naps
from fakes import CANCELLED, HELD, LIVE, QUEUED, RUNNING, Lab, until

from hpcpipe import each
from hpcpipe.errors import ConfigError, SchedulerError, SchedulerUnavailable
from hpcpipe.jobs import After, JobEnd, JobStatus, Reason, State
from hpcpipe.resources import Resources
from hpcpipe.run import retry, submit
from hpcpipe.status.report import make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.record import read_record
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.recover import recover


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note what would have been waited for, and let nothing wait."""
    return skip_naps(monkeypatch)


@pytest.fixture
def four(lab: Lab) -> Lab:
    """Four batches: an array, one aligned with it, one that waits for all of that, one alone."""
    first = lab.workflow.command("echo {n}", n=each([1, 2, 3]), name="start")
    second = lab.workflow.command("echo", name="go_on", after=[first])
    lab.workflow.command("echo", name="collect", after=[second.gather()])
    lab.workflow.command("echo", name="alone")
    return lab


def live_tasks(lab: Lab) -> Counter[str]:
    """Count, by node and key, the tasks of all elements that the scheduler has, and that will not
    end at once as they were cancelled."""
    barred = lab.store.list_cancelled()
    history = Ledger(lab.rundir.ledger).read()
    records = [read_record(lab.rundir, run["run"]) for run in history.runs]
    batches = {batch.id: batch for record in records for batch in record.batches.values()}
    fake = lab.scheduler
    return Counter(
        f"{node} {key}"
        for name, job in fake.jobs.items()
        for node, key, index in batches[job.batch].tasks()
        if fake.says.get(fake.element(name, index)) in LIVE
        for cancelled in [barred.get(job.batch, set())]
        if cancelled is not None and index not in cancelled
    )


def all_tasks(lab: Lab) -> Counter[str]:
    """Count every task of the workflow once."""
    record = read_record(lab.rundir, Ledger(lab.rundir.ledger).read().last["run"])
    nodes = record.nodes.values()
    return Counter(f"{node.name} {node.key(index)}" for node in nodes for index in range(len(node)))


def check_complete(lab: Lab) -> None:
    """Hold what the scheduler has against what it should: each task once, nothing held."""
    assert live_tasks(lab) == all_tasks(lab)
    jobs = lab.scheduler.live
    live = {word for word in lab.scheduler.says.values() if word in LIVE}
    assert live <= {QUEUED, RUNNING}
    assert {
        (job.node, jobs[after.job].node, after.kind) for job in jobs.values() for after in job.after
    } == {("go_on", "start", "each"), ("collect", "go_on", "all")}
    history = Ledger(lab.rundir.ledger).read()
    assert (history.adrift(), history.held()) == ([], [])
    report = make_report(lab.rundir)
    assert (report.adrift, report.failures, sum(report.total.values())) == (0, [], 8)


# The order of events


def test_intent_and_id_are_on_disk_around_every_call_and_roots_are_held_until_the_last(
    four: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Ledger.append

    def noted(ledger: Ledger, event: str, **facts: Any) -> None:
        append(ledger, event, **facts)
        four.scheduler.calls.append(event.upper())

    monkeypatch.setattr(Ledger, "append", noted)
    four.submit()
    each_batch = ["SUBMITTING", "submit", "submitted", "SUBMITTED"]
    assert four.scheduler.calls == ["RUN", *4 * each_batch, "release", "released", "RELEASED"]
    jobs = four.scheduler.jobs.values()
    assert [(job.node, job.after, job.held) for job in jobs] == [
        ("start", (), True),
        ("go_on", (After("1", "each"),), False),
        ("collect", (After("2"),), False),
        ("alone", (), True),
    ]
    check_complete(four)


def test_all_that_a_job_needs_is_on_disk_before_it_is_submitted(four: Lab) -> None:
    def look(step: str) -> None:
        if step != "submitted":
            return
        newest = [*four.scheduler.jobs.values()][-1]
        intent = Ledger(four.rundir.ledger).read().submissions[newest.batch]
        assert (intent.job, intent.token, intent.held) == (None, newest.token, newest.held)
        record = read_record(four.rundir, 1)
        assert {folder.name for folder in (four.rundir.home / "results").iterdir()} == {
            *record.nodes
        }
        made = {path.name for path in four.rundir.batches.iterdir()}
        scripts = {f"{batch}{end}" for batch in record.batches for end in (".sh", ".tasks")}
        assert {name for name in made if not name.endswith(".env")} == scripts
        assert len(made) == len(scripts) + 1  # the environment, the same for all
        assert newest.batch in record.batches

    four.scheduler.hook = look
    four.submit()
    assert four.scheduler.calls.count("submitted") == 4


def test_a_plan_that_fails_leaves_nothing_behind(four: Lab) -> None:
    four.workflow.command("echo", name="greedy", resources={"queue": "nowhere"})
    four.site = four.with_queue("short")
    with pytest.raises(ConfigError, match="no queue 'nowhere'"):
        four.submit()
    assert not four.rundir.folder.exists()


# Killed, and submitted again


@pytest.fixture
def deadly(four: Lab, monkeypatch: pytest.MonkeyPatch) -> Deadly:
    """Submit or do else, dying at a step; see `deadly.make_deadly`."""
    return make_deadly(four, monkeypatch)


def test_killed_anywhere_the_same_command_completes_and_doubles_nothing(
    four: Lab, deadly: Deadly
) -> None:
    steps = deadly()
    check_complete(four)
    assert steps > 30
    for at in range(steps):
        shutil.rmtree(four.rundir.folder)
        four.scheduler.forget()
        deadly(at)
        deadly()
        check_complete(four)
        places = [task.place for task in make_report(four.rundir).tasks]
        assert {place.attempt for place in places if place} == {1}


def test_killed_again_and_again_a_little_later_each_time_it_still_completes(
    four: Lab, deadly: Deadly
) -> None:
    at = 0
    while deadly(at) == at + 1:
        at += 1
    check_complete(four)
    assert at > 10


@pytest.fixture
def restore(four: Lab, tmp_path: Path) -> Callable[[], None]:
    """Have the four batches submitted and partly run, and give what puts them back to that: one
    task has run out of memory, so that its followers never began; all others of arrays are done."""
    fake = four.scheduler
    submit(four.workflow, site=four.site, resources=Resources.parse(memory="100M"))
    for name in ("start/1", "start/3", "go_on/1", "go_on/3"):
        assert four.run(name).status == 0
    never = JobEnd("DependencyNeverSatisfied", Reason.UPSTREAM)
    ends = {one: JobEnd("COMPLETED", None) for one in fake.says} | {"2_1": never, "3": never}
    fake.says = {**ends, "1_1": JobEnd("OUT_OF_MEMORY", Reason.MEMORY), "4": QUEUED}
    jobs, says = dict(fake.jobs), dict(fake.says)
    saved = shutil.copytree(four.rundir.folder, tmp_path / "saved")

    def restore() -> None:
        shutil.rmtree(four.rundir.folder)
        shutil.copytree(saved, four.rundir.folder)
        fake.jobs, fake.says = dict(jobs), dict(says)

    return restore


def test_retry_killed_anywhere_and_typed_again_runs_again_once_what_failed(
    four: Lab, deadly: Deadly, restore: Callable[[], None]
) -> None:
    def again() -> object:
        return retry(four.rundir.folder, site=four.site)

    steps = deadly(command=again)
    assert steps > 20
    for at in range(steps):
        restore()
        deadly(at, again)
        deadly(command=again)
        live = Counter(task.partition(" ")[0] for task in live_tasks(four).elements())
        assert live == dict.fromkeys(("start", "go_on", "collect", "alone"), 1), at
        assert HELD not in four.scheduler.says.values(), at
        report = make_report(four.rundir)
        assert (report.adrift, report.failures) == (0, []), at
        [place] = [task.place for task in report.tasks if task.name == "start/2"]
        assert place is not None
        assert (place.attempt, place.batch.per_task.memory) == (2, 200), at


@pytest.mark.parametrize("forgets", [False, True], ids=["accounted", "forgotten"])
@pytest.mark.parametrize("names", [(), ("start/2", "alone")], ids=["all", "some"])
def test_cancel_killed_anywhere_and_typed_again_cancels_and_submit_runs_all_once(
    four: Lab, deadly: Deadly, names: tuple[str, ...], *, forgets: bool
) -> None:
    fake = four.scheduler

    def stop() -> object:
        try:
            return cancel(four.rundir, names)
        finally:
            if forgets:  # as some do with what was cancelled before it began
                fake.says = {one: word for one, word in fake.says.items() if word in LIVE}

    deadly()
    steps = deadly(command=stop)
    assert steps > 5
    for at, again in product(range(steps), (True, False)):
        shutil.rmtree(four.rundir.folder)
        fake.forget()
        deadly()
        deadly(at, stop)
        if again:
            deadly(command=stop)
            told = {t.name for t in make_report(four.rundir).tasks if t.state is State.CANCELLED}
            assert told >= {*names}, at
            assert names or (len(told), fake.live) == (8, {}), at
        deadly()
        assert live_tasks(four) == all_tasks(four), (at, again)
        assert HELD not in fake.says.values(), (at, again)
        report = make_report(four.rundir, fresh=True)
        assert (report.adrift, report.failures) == (0, []), (at, again)


def test_what_was_left_held_and_is_gone_since_is_submitted_anew(four: Lab) -> None:
    def die(step: str) -> None:
        if step == "release":
            raise Killed

    four.scheduler.hook = die
    with pytest.raises(Killed):
        four.submit()
    four.scheduler.hook = lambda _: None
    assert make_report(four.rundir).adrift == 2
    for job in ("1", "2", "3"):
        four.scheduler.cancel([job])
    four.submit()
    check_complete(four)
    assert [job.node for job in four.scheduler.live.values()] == [
        "alone", "start", "go_on", "collect",
    ]  # fmt: skip


def test_a_run_of_which_nothing_was_handed_over_says_so(four: Lab) -> None:
    def die(_: str) -> None:
        raise Killed

    four.scheduler.hook = die
    with pytest.raises(Killed):
        four.submit()
    report = make_report(four.rundir)
    assert (report.adrift, report.finished) == (4, False)
    assert report.total == {State.UNKNOWN: 3, State.WAITING: 5}


# Refused, or not answered


def refuse(words: str, at: int) -> Callable[[str], None]:
    """Refuse the n-th job."""
    calls = count(1)

    def hook(step: str) -> None:
        if step == "submit" and next(calls) == at:
            raise SchedulerError(words)

    return hook


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_refusal_leaves_nothing_in_the_queue_and_the_same_command_begins_anew(
    four: Lab, at: int
) -> None:
    four.scheduler.hook = refuse("sbatch: error: Invalid qos", at)
    with pytest.raises(SchedulerError) as refused:
        four.submit()
    said = str(refused.value)
    node = ["start", "go_on", "collect", "alone"][at - 1]
    assert said.startswith(f"sbatch: error: Invalid qos\nRefused: batch {node}-")
    assert "Nothing of this submission is left in the queue." in said
    assert not four.scheduler.live
    report = make_report(four.rundir)
    assert (report.finished, report.adrift, report.asked) == (True, 0, None)
    assert {(task.reason, task.words) for task in report.tasks} == {
        (Reason.REFUSED, "sbatch: error: Invalid qos")
    }
    four.scheduler.hook = lambda _: None
    four.submit()
    check_complete(four)


def test_a_refused_account_is_answered_with_one_that_may_be_used(four: Lab) -> None:
    four.scheduler.hook = refuse("sbatch: error: Invalid account", 2)
    with pytest.raises(SchedulerError, match=r"Type: hpcpipe retry --account lab$"):
        four.submit()
    submission = make_report(four.rundir).tasks[0].place
    assert submission is not None
    assert submission.submission.hint == "--account lab"


def full(*calls: int) -> Callable[[str], None]:
    """Let a limit of jobs be reached at some submit commands."""
    counted = count(1)

    def hook(step: str) -> None:
        if step == "submit" and next(counted) in calls:
            raise SchedulerError("QOSMaxSubmitJobPerUserLimit", passing=True)

    return hook


def test_a_limit_of_jobs_is_waited_for_a_while(
    four: Lab, naps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    four.scheduler.hook = full(2, 3, 5)
    four.submit()
    assert naps == [5, 10, 5]
    said = [f"QOSMaxSubmitJobPerUserLimit\nTrying again in {seconds} s." for seconds in naps]
    assert caplog.messages == said
    check_complete(four)


def test_a_limit_of_jobs_that_does_not_pass_leaves_nothing_in_the_queue(
    four: Lab, naps: list[float]
) -> None:
    four.scheduler.hook = full(*range(2, 100))
    with pytest.raises(SchedulerError, match=r"(?s)^QOSMaxSubmit.*Refused: .*--pack N\.$"):
        four.submit()
    assert naps == [5, 10, 20, 40, 60]
    assert not four.scheduler.live


def test_what_cannot_be_taken_back_is_said_to_be_held(four: Lab) -> None:
    def hook(step: str) -> None:
        if step == "cancel":
            raise SchedulerUnavailable("no answer")
        refused(step)

    refused = refuse("sbatch: error: Invalid qos", 2)
    four.scheduler.hook = hook
    with pytest.raises(SchedulerUnavailable, match=r"(?s)^sbatch.*is held, .*: no answer\nType: "):
        four.submit()
    four.scheduler.hook = lambda _: None
    four.submit()
    check_complete(four)


def test_a_site_that_wants_few_submit_commands_a_minute_gets_few(
    four: Lab, naps: list[float]
) -> None:
    four.site = replace(four.site, limits=replace(four.site.limits, submits_per_minute=6))
    four.submit()
    assert naps == [10, 10, 10]


def unavailable(*steps: int) -> Callable[[str], None]:
    """Let the scheduler not answer at some of its calls."""
    calls = count(1)

    def hook(_: str) -> None:
        if next(calls) in steps:
            raise SchedulerUnavailable("Unable to contact slurm controller")

    return hook


def no_answer(at: str, *batches: int) -> Callable[[str], None]:
    """Let some of the submit commands not answer, before or after their job is in the queue."""
    calls = count(1)

    def hook(step: str) -> None:
        if step == at and next(calls) in batches:
            raise SchedulerUnavailable("Unable to contact slurm controller")

    return hook


@pytest.mark.parametrize(
    ("at", "commands", "calls", "pauses"),
    [
        ("submit", (1,), 4 + 1, [1, 2]),
        ("submitted", (1,), 4, []),
        ("submit", (2, 3), 4 + 2, [1, 2, 1, 2]),
        ("submitted", (2, 4), 4, []),
    ],
)
def test_a_scheduler_that_does_not_answer_once_is_asked_again_without_doubling(
    four: Lab, naps: list[float], at: str, commands: tuple[int, ...], calls: int, pauses: list[int]
) -> None:
    four.scheduler.hook = no_answer(at, *commands)
    four.submit()
    assert four.scheduler.calls.count("submit") == calls
    assert naps == pauses
    check_complete(four)


@pytest.mark.parametrize("since", range(1, 11))
def test_a_scheduler_gone_half_way_loses_nothing(four: Lab, since: int) -> None:
    four.scheduler.hook = unavailable(*range(since, 100))
    with pytest.raises(SchedulerUnavailable) as gone:
        four.submit()
    submissions = Ledger(four.rundir.ledger).read().submissions.values()
    known = sum(one.job is not None for one in submissions)
    assert str(gone.value) == (
        f"Unable to contact slurm controller\n{known} of 4 batches are with the scheduler, held; "
        "nothing is lost: the same command again goes on from here"
    )
    assert make_report(four.rundir).trouble == "Unable to contact slurm controller" or not known
    four.scheduler.hook = lambda _: None
    four.submit()
    check_complete(four)


# What is done, and what is in flight


def test_tasks_in_flight_are_depended_on_and_not_submitted_again(four: Lab) -> None:
    four.submit()
    nodes = four.workflow.nodes
    four.workflow.command("echo", name="late", after=[nodes["go_on"], nodes["alone"]])
    before = dict(four.scheduler.jobs)
    four.scheduler.calls.clear()
    four.submit()
    assert four.scheduler.calls == ["poll", "submit", "submitted", "release", "released"]
    [late] = [job for name, job in four.scheduler.jobs.items() if name not in before]
    assert (late.node, set(late.after)) == ("late", {After("2", "each"), After("4")})
    assert live_tasks(four) == all_tasks(four)


def test_good_tasks_are_neither_run_nor_waited_for_and_failed_ones_are_run_again(
    four: Lab,
) -> None:
    four.submit()
    for name in ("start/1", "start/2", "start/3", "go_on/1", "go_on/3", "alone"):
        assert four.run(name).status == 0
    four.scheduler.cancel(["1", "2", "3", "4"])
    four.submit()
    go_on, collect = four.scheduler.live.values()
    assert (go_on.node, go_on.after) == ("go_on", ())
    assert (collect.node, collect.after) == ("collect", (After("5"),))
    report = make_report(four.rundir)
    attempts = {task.name: task.place.attempt for task in report.tasks if task.place}
    assert attempts == {"go_on/2": 2, "collect": 2}


def test_nothing_left_to_do_is_no_business_of_the_scheduler(four: Lab) -> None:
    four.submit()
    for name in ("start/1", "start/2", "start/3", "go_on/1", "go_on/2", "go_on/3"):
        assert four.run(name).status == 0
    assert [four.run(name).status for name in ("collect", "alone")] == [0, 0]
    four.scheduler.calls.clear()
    four.submit()
    assert four.scheduler.calls == []


def test_the_claim_of_a_job_that_is_gone_is_lifted_and_that_of_a_live_one_is_not(
    four: Lab,
) -> None:
    four.submit()
    claims = [four.find(name).claim for name in ("start/1", "start/2", "alone")]
    for claim in claims:
        claim.write_text("node7 1234 9\n")
    four.scheduler.says["1_0"] = RUNNING
    four.scheduler.says["1_1"] = CANCELLED
    four.scheduler.says["4"] = CANCELLED
    four.submit()
    assert [claim.exists() for claim in claims] == [True, False, False]


def test_a_task_that_changed_while_it_was_queued_is_replaced_and_others_are_left_alone(
    lab: Lab,
) -> None:
    lab.workflow.command("echo {n}", n=each([1, 2, 3], axis="n"), name="say")
    lab.submit()
    lab.workflow.nodes.clear()
    lab.workflow.command("echo -n {n}", n=each([2, 3, 4], axis="n"), name="say")
    lab.submit()
    fake = lab.scheduler
    assert [one for one, word in fake.says.items() if word is CANCELLED] == ["1_1", "1_2"]
    assert [one for one, word in fake.says.items() if word in LIVE] == ["1_0", "2_0", "2_1", "2_2"]


def test_a_job_that_arrives_after_it_was_given_up_is_cancelled_unrun(four: Lab) -> None:
    def die(step: str) -> None:
        if step == "submit":
            raise Killed

    four.scheduler.hook = die
    with pytest.raises(Killed):
        four.submit()
    four.scheduler.hook = lambda _: None
    four.submit()  # gives up the first intent, and hands all over anew
    lost = next(one for one in Ledger(four.rundir.ledger).read().void())
    script = next(four.rundir.batches.glob("start-*.sh"))
    late = four.scheduler.submit(script, token=lost.token, held=True)
    four.submit()
    assert late not in four.scheduler.live
    check_complete(four)


def test_what_can_never_start_is_cancelled_when_its_task_is_submitted_anew(four: Lab) -> None:
    four.submit()
    alone = next(name for name, job in four.scheduler.jobs.items() if job.node == "alone")
    four.scheduler.says[alone] = JobStatus(State.BLOCKED, "Q", "Can Never Run")
    [failed] = make_report(four.rundir).failures
    assert failed[:1] == ("alone",)
    assert failed[3:6] == (State.FAILED, Reason.REFUSED, "Can Never Run")
    four.submit()
    assert four.scheduler.says[alone] == CANCELLED
    assert [job.node for job in four.scheduler.live.values()].count("alone") == 1


def test_a_submit_command_that_outlives_its_client_is_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.command("echo a", name="work")
    token = "0123456789abcdef"
    late = subprocess.Popen([sys.executable, "-c", "input()", token], stdin=subprocess.PIPE)
    words = Path(f"/proc/{late.pid}/cmdline")  # which is empty for a moment
    until(lambda: token.encode() in words.read_bytes())

    def arrive(tokens: Collection[str]) -> Mapping[str, str]:
        if late.poll() is None:  # asked about while it runs; it arrives as it ends
            late.communicate(b"\n")
            return {}
        return dict.fromkeys(tokens, "77")

    lab.submit()
    Ledger(lab.rundir.ledger).submitting(
        "work-0a1b2c3d", 1, token, held=True, instance="local:fake"
    )
    monkeypatch.setattr(lab.scheduler, "find", arrive)
    recover(lab.rundir)
    assert Ledger(lab.rundir.ledger).read().submissions["work-0a1b2c3d"].job == "77"


def test_one_answer_that_went_wrong_leaves_no_interrupted_submission_in_doubt(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.command("echo a", name="work")
    ledger = Ledger(lab.rundir.ledger)
    lab.submit()
    ledger.submitting("work-0a1b2c3d", 1, "t1", held=True, instance="local:fake")
    asked = []

    def find(tokens: Collection[str]) -> Mapping[str, str]:
        asked.append(tokens)
        if len(asked) == 1:
            raise SchedulerUnavailable("qstat: cut short")
        return {"t1": "77"}

    monkeypatch.setattr(lab.scheduler, "find", find)
    recover(lab.rundir)
    assert ledger.read().submissions["work-0a1b2c3d"].job == "77"


def test_what_ends_between_the_looks_at_results_and_queue_is_not_submitted_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.command("echo {n}", n=each([1, 2]), name="work")
    lab.submit()
    poll = lab.scheduler.poll

    def end_first(jobs: Collection[str]) -> Mapping[str, JobStatus]:
        assert lab.run("work/1").status == 0
        return {element: one for element, one in poll(jobs).items() if element != "1_0"}

    monkeypatch.setattr(lab.scheduler, "poll", end_first)
    lab.submit()
    assert len(lab.scheduler.jobs) == 1
