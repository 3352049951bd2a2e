"""Which tasks are retried in the queue, how often, and what a continuation needs for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import CANCELLED, FakeScheduler, Lab

from hpcpipe import each
from hpcpipe.continuing import resume, wake
from hpcpipe.errors import LockHeld
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run, submit_due
from hpcpipe.status.attempts import bad_nodes
from hpcpipe.store.ledger import Ledger
from hpcpipe.submit.continuation import Continuation
from hpcpipe.submit.locking import locked

NODE = JobEnd("NODE_FAIL", Reason.NODE, host="n7")
EXIT = JobEnd("FAILED", Reason.EXIT, 75)
MEMORY = JobEnd("OUT_OF_MEMORY", Reason.MEMORY, max_memory=300)
TIME = JobEnd("TIMEOUT", Reason.TIME)
DROPPED = JobEnd("CANCELLED", Reason.CANCELLED)
KINDS = ["a", "b", "c"]


def begin(lab: Lab, **asked: Any) -> None:
    asked = {"memory": "100M", "time": "5m", **asked}
    work = lab.workflow.command("w {kind}", name="work", kind=each(KINDS), resources=asked)
    lab.workflow.command("n {kind}", name="next", kind=each(KINDS), after=[work])
    lab.submit()


def end(lab: Lab, task: str, word: JobEnd) -> None:
    element = lab.find(task)
    name = element.job if element.index is None else f"{element.job}_{element.index}"
    lab.scheduler.says[name] = word


def submitted(lab: Lab) -> list[str]:
    """Retry what is due, and name the tasks that were submitted."""
    record = submit_due(Run(lab.rundir.folder)).plan
    return [node.node.task(task) for node in record.nodes.values() for task in node.to_run]


def continuations(lab: Lab) -> list[str]:
    live = lab.scheduler.live.values()
    return [job.batch for job in live if job.batch.startswith("+")]


@pytest.mark.parametrize(
    ("word", "asked", "again"),
    [
        (EXIT, {"retries": 1}, True),
        (EXIT, {"retries": 0}, False),
        (EXIT, {}, False),
        (EXIT, {"retries": 1, "retry_if": 75}, True),
        (EXIT, {"retries": 1, "retry_if": [7, "licen[cs]e"]}, False),
        (MEMORY, {"retries": 1, "retry_if": 75}, True),
        (MEMORY, {"retries": 1, "on_memory": "no"}, False),
        (TIME, {"retries": 1, "on_memory": "no"}, True),
        (NODE, {"retries": 0}, True),
        (JobEnd("PREEMPTED", Reason.PREEMPTED), {"retries": 0}, True),
        (NODE, {}, False),
        (CANCELLED, {"retries": 1}, False),
        (JobEnd("PENDING", Reason.NEVER), {"retries": 1}, False),
    ],
)
def test_a_retry_is_due_by_the_reason_and_what_was_asked(
    lab: Lab, word: JobEnd, asked: dict[str, Any], again: bool
) -> None:
    begin(lab, **asked)
    end(lab, "work/b", word)
    assert submitted(lab) == ["work/b", "next/b"] * again
    assert bool(continuations(lab)) is ("retries" in asked)


def test_attempts_are_counted_from_what_a_person_submitted_and_node_failures_are_not(
    lab: Lab,
) -> None:
    begin(lab, retries=2)
    for word in (EXIT, NODE, EXIT):
        end(lab, "work/b", word)
        assert submitted(lab) == ["work/b", "next/b"]
    end(lab, "work/b", EXIT)
    assert submitted(lab) == []
    lab.submit()
    end(lab, "work/b", EXIT)
    assert submitted(lab) == ["work/b", "next/b"]
    ends = Run(lab.rundir.folder).record.attempts["work"]
    assert [one[1] for [some] in [ends.values()] for one in some] == [
        *("exit", "node failure", "exit", "exit", "exit")
    ]


def test_an_interrupted_submission_uses_up_no_attempt(lab: Lab) -> None:
    begin(lab, retries=1)
    end(lab, "work/b", EXIT)

    def kill(step: str) -> None:
        if step == "submit":
            raise KeyboardInterrupt

    lab.scheduler.hook = kill
    with pytest.raises(KeyboardInterrupt):
        submitted(lab)
    lab.scheduler.hook = lambda _: None
    assert submitted(lab) == ["work/b", "next/b"]


def test_what_the_scheduler_dropped_follows_but_not_what_a_person_cancelled(lab: Lab) -> None:
    begin(lab, retries=1)
    for task, word in (("work/b", EXIT), ("next/b", DROPPED), ("next/c", CANCELLED)):
        end(lab, task, word)
    assert submitted(lab) == ["work/b", "next/b"]


def test_a_task_that_was_dropped_has_used_up_no_attempt(lab: Lab) -> None:
    work = lab.workflow.command("echo", name="work")
    lab.workflow.command("echo", name="next", after=[work], resources={"retries": 1})
    lab.submit()
    assert lab.run("work").status == 0
    end(lab, "work", NODE)  # after it had succeeded
    end(lab, "next", DROPPED)
    assert submitted(lab) == ["next"]
    assert not Run(lab.rundir.folder).record.attempts
    end(lab, "next", EXIT)
    assert submitted(lab) == ["next"]


def test_memory_grows_by_what_was_said_or_measured_and_stops_at_the_largest_queue(lab: Lab) -> None:
    begin(lab, retries=5, on_memory="x4")
    end(lab, "work/a", MEMORY)
    assert submitted(lab) == ["work/a", "next/a"]
    batches = Run(lab.rundir.folder).record.batches.values()
    assert [one.resources.memory for one in batches if one.nodes == ("work",)] == [400]


def test_a_failed_task_waits_while_a_continuation_does(lab: Lab) -> None:
    begin(lab, retries=1)
    end(lab, "work/b", EXIT)
    end(lab, "next/b", DROPPED)
    report = Run(lab.rundir.folder).report(fresh=True)
    told = {task.name: task.state for task in report.tasks}
    assert (told["work/b"], told["next/b"]) == (State.WAITING, State.WAITING)
    assert report.mending
    lab.scheduler.cancel([*lab.scheduler.live])
    report = Run(lab.rundir.folder).report(fresh=True)
    assert {task.name: task.state for task in report.tasks}["work/b"] is State.FAILED


def test_three_tasks_that_a_node_ended_have_it_left_out(lab: Lab) -> None:
    begin(lab, retries=1)
    for kind in KINDS:
        end(lab, f"work/{kind}", NODE)
    submitted(lab)
    assert bad_nodes(Run(lab.rundir.folder).record.attempts) == ["n7"]


def test_a_continuation_that_did_its_work_leaves_none_for_its_stand_in(lab: Lab) -> None:
    begin(lab, retries=1)
    first, second = continuations(lab)
    end(lab, "work/b", EXIT)
    resume(lab.rundir.folder, Continuation(first))
    assert not {first, second} & {
        one.batch for one in Ledger(lab.rundir.ledger).read().continuations()
    }
    runs = len(Ledger(lab.rundir.ledger).read().runs)
    resume(lab.rundir.folder, Continuation(second, first, 1))
    assert len(Ledger(lab.rundir.ledger).read().runs) == runs


def test_a_stand_in_of_one_that_was_killed_gets_one_itself_first(lab: Lab) -> None:
    begin(lab, retries=1)
    first, second = continuations(lab)
    end(lab, "work/b", EXIT)
    lab.scheduler.calls.clear()
    resume(lab.rundir.folder, Continuation(second, first, 1))
    jobs = [*lab.scheduler.jobs.values()]
    stand_in = jobs[4]
    assert stand_in.batch.startswith("+")
    assert [jobs[int(one.job) - 1].batch for one in stand_in.after] == [second]
    assert [job.node for job in jobs[5:7]] == ["work", "next"]


def test_only_one_continuation_is_called_for_at_a_time(lab: Lab) -> None:
    begin(lab, retries=1)
    before = len(lab.scheduler.jobs)
    wake(lab.rundir.folder)
    wake(lab.rundir.folder)
    assert len(lab.scheduler.jobs) == before + 1
    resume(lab.rundir.folder, Continuation("+continue-0000"))
    wake(lab.rundir.folder)
    assert len(lab.scheduler.jobs) == before + 2


def test_the_lock_of_a_continuation_that_was_killed_elsewhere_is_taken_over(lab: Lab) -> None:
    begin(lab, retries=1)
    first, _ = continuations(lab)
    [job] = [name for name, one in lab.scheduler.jobs.items() if one.batch == first]
    lab.rundir.lock_file.write_text(f"elsewhere boot pidns 1 1 0 {job} {first}\n")
    with pytest.raises(LockHeld), locked(lab.rundir, 0.1):
        pass
    lab.scheduler.cancel([job])
    with locked(lab.rundir, 0.1):
        pass


def test_the_lock_of_an_element_that_was_killed_elsewhere_is_taken_over(lab: Lab) -> None:
    begin(lab, retries=1)
    batch = lab.scheduler.jobs["1"].batch
    lab.rundir.lock_file.write_text(f"elsewhere boot pidns 1 1 0 7 {batch}.1\n")
    with pytest.raises(LockHeld), locked(lab.rundir, 0.1):
        pass
    lab.scheduler.cancel(["1_1"])  # others of the array go on
    with locked(lab.rundir, 0.1):
        pass


def test_a_site_whose_nodes_may_not_submit_gets_none(lab: Lab) -> None:
    lab.site = replace(lab.site, nodes=replace(lab.site.nodes, may_submit=False))
    begin(lab, retries=1)
    assert continuations(lab) == []


def test_where_continuations_run_on_the_submit_host_they_need_no_node_that_may_submit(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.site = replace(lab.site, nodes=replace(lab.site.nodes, may_submit=False))
    able = lab.scheduler.capabilities._replace(continues_on_submit_host=True)
    monkeypatch.setattr(FakeScheduler, "capabilities", able)
    begin(lab, retries=1)
    assert len(continuations(lab)) == 2
    assert not (lab.rundir.waking).exists()  # a task that fails calls for none


def test_a_run_that_has_ended_gets_no_further_continuation(lab: Lab) -> None:
    lab.workflow.command("true {kind}", name="work", kind=each(KINDS), resources={"retries": 1})
    lab.submit()
    Run(lab.rundir.folder).report(fresh=True)  # all is in the queue, by the answer that is kept
    for kind in KINDS:
        assert lab.run(f"work/{kind}").status == 0
        end(lab, f"work/{kind}", JobEnd("COMPLETED", None))
    first, second = continuations(lab)
    resume(lab.rundir.folder, Continuation(first))
    assert {*continuations(lab)} <= {first}
    assert second not in continuations(lab)
