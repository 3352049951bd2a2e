"""A submission that waits for another run: what is submitted when, and what if that run fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import Lab
from test_attempts import EXIT, begin, continuations, end

from hpcpipe import Workflow, each
from hpcpipe.cli import hpcpipe
from hpcpipe.continuing import resume
from hpcpipe.errors import UsageError
from hpcpipe.jobs import Reason, State
from hpcpipe.run import Run, retry, submit
from hpcpipe.status.report import make_report
from hpcpipe.store.ledger import Ledger
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.continuation import Continuation


def following(lab: Lab, after: Path | None = None, **asked: Any) -> Run:
    workflow = Workflow("second", base_dir=lab.rundir.folder.parent)
    workflow.command("v {kind}", name="then", kind=each(["x", "y"]), resources=asked)
    return submit(workflow, site=lab.site, after_run=after or lab.rundir.folder)


def waiting(run: Run) -> Continuation:
    """Return the continuation of a run that waits."""
    [one] = [o for o in Ledger(run.rundir.ledger).read().continuations() if not o.stands_in_for]
    return Continuation(one.batch)


def tasks(lab: Lab) -> list[str]:
    return [job.node for job in lab.scheduler.live.values() if not job.batch.startswith("+")]


def succeed(lab: Lab, *names: str) -> None:
    for name in names:
        assert lab.run(name).status == 0
        del lab.scheduler.says[lab_element(lab, name)]


def lab_element(lab: Lab, name: str) -> str:
    one = lab.find(name)
    return one.job if one.index is None else f"{one.job}_{one.index}"


def test_it_is_submitted_by_a_job_once_the_other_run_has_succeeded(lab: Lab) -> None:
    lab.workflow.command("true", name="first")
    lab.submit()
    run = following(lab)
    jobs = {job.batch: job for job in lab.scheduler.jobs.values()}
    mine = waiting(run)
    assert [one.job for one in jobs[mine.id].after] == ["1"]
    assert not jobs[mine.id].after[0].well
    assert tasks(lab) == ["first"]
    assert [task.state for task in run.report().tasks] == [State.WAITING] * 2
    succeed(lab, "first")
    resume(run.rundir.folder, mine)
    assert tasks(lab) == ["then"]
    assert not run.record.after


def test_it_waits_on_while_the_other_run_is_retried(lab: Lab) -> None:
    begin(lab, retries=1)
    run = following(lab)
    first = waiting(Run(lab.rundir.folder)).id
    jobs = {job.batch: job for job in lab.scheduler.jobs.values()}
    names = [lab.scheduler.jobs[one.job].batch for one in jobs[waiting(run).id].after]
    assert first in names
    assert len(names) == 4  # two arrays, the continuation, its stand-in
    end(lab, "work/b", EXIT)
    resume(lab.rundir.folder, Continuation(first))  # which retries it
    before = waiting(run)
    resume(run.rundir.folder, before)
    assert waiting(run) != before
    assert "then" not in tasks(lab)


def test_if_the_other_run_fails_nothing_is_submitted_and_status_says_why(lab: Lab) -> None:
    lab.workflow.command("false", name="first")
    lab.submit()
    run = following(lab)
    lab.run("first")
    end(lab, "first", EXIT)
    resume(run.rundir.folder, waiting(run))
    report = run.report(fresh=True)
    assert report.finished
    assert Ledger(run.rundir.ledger).read().continuations() == []
    assert {task.reason for task in report.failures} == {Reason.BEFORE}
    assert "did not succeed (finished: its only task failed)" in report.failures[0].words
    with pytest.raises(UsageError, match="did not succeed"):
        following(lab)
    retry(run.rundir.folder, site=lab.site)  # a person wants it all the same
    assert tasks(lab) == ["then"]


def test_submitted_twice_it_waits_once_and_cancelled_it_is_over(lab: Lab) -> None:
    lab.workflow.command("true", name="first")
    lab.submit()
    run = following(lab)
    count = len(lab.scheduler.jobs)
    following(lab)
    assert len(lab.scheduler.jobs) == count
    cancel(run.rundir)
    assert continuations(lab) == []
    report = make_report(run.rundir, fresh=True)
    assert report.finished
    assert {task.reason for task in report.failures} == {Reason.BEFORE}


def test_after_a_run_that_has_succeeded_it_is_submitted_at_once(lab: Lab) -> None:
    lab.workflow.command("true", name="first")
    lab.submit()
    succeed(lab, "first")
    following(lab)
    assert tasks(lab) == ["then"]


@pytest.mark.parametrize("verb", ["plan", "map"])
def test_a_plan_says_what_it_would_wait_for(lab: Lab, verb: str) -> None:
    lab.workflow.command("true", name="first")
    lab.submit()
    Path("flow.py").write_text(
        "from hpcpipe import Workflow\nwf = Workflow('w')\nwf.command('true', name='t')\n"
    )
    end_words = {"plan": ["flow.py"], "map": ["--", "echo", "{}", ":::", "1"]}[verb]
    words = [verb, "--site", "local", *(["--dry-run"] if verb == "map" else [])]
    words += ["--after-run", str(lab.rundir.folder), *end_words]

    def said() -> str:
        return CliRunner().invoke(hpcpipe, words, catch_exceptions=False).output

    assert f"is submitted by a job, once {lab.rundir.folder} has succeeded." in said()
    succeed(lab, "first")
    assert f"It need not wait: {lab.rundir.folder} has succeeded." in said()


def test_what_cannot_wait_is_refused_and_leaves_nothing(lab: Lab) -> None:
    lab.workflow.command("true", name="first")
    lab.submit()
    with pytest.raises(UsageError, match="nothing was submitted"):
        following(lab, lab.rundir.folder.parent / "nowhere")
    with pytest.raises(UsageError, match="itself"):
        submit(lab.workflow, site=lab.site, after_run=lab.rundir.folder)
    lab.site = replace(lab.site, nodes=replace(lab.site.nodes, may_submit=False))
    with pytest.raises(UsageError, match="may not submit"):
        following(lab)
    assert not (lab.rundir.folder.parent / "second").exists()


def test_who_submits_while_a_continuation_does_waits_for_the_lock_and_finds_it_done(
    lab: Lab,
) -> None:
    begin(lab, retries=1)
    end(lab, "work/b", EXIT)
    first = waiting(Run(lab.rundir.folder))
    person = Thread(target=lab.submit)

    def meanwhile(step: str) -> None:
        if step == "submit" and not person.ident:
            person.start()
            person.join(0.5)
            assert person.is_alive()

    lab.scheduler.hook = meanwhile
    resume(lab.rundir.folder, first)
    person.join()
    assert [job.node for job in lab.scheduler.jobs.values()].count("work") == 2
