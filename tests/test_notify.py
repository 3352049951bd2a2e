"""Telling a person that a run has ended: once, from the queue, whatever became of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
from deadly import make_deadly, skip_naps
from fakes import Lab, until
from test_continuation import DONE, FAILED, go_on, next_one, run

from hpcpipe import each
from hpcpipe.errors import SchedulerError, TasksFailed, UsageError
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import Capabilities
from hpcpipe.notify import notify
from hpcpipe.run import Run, retry, submit
from hpcpipe.site import Limits, Nodes, Site
from hpcpipe.store.ledger import Ledger
from hpcpipe.submit.cancel import cancel
from hpcpipe.submit.options import Options
from hpcpipe.submit.prepare import draft
from hpcpipe.views.plan import plan_lines

SITE = Site(limits=Limits(settle_seconds=0, poll_seconds=1))


def work(x: int, bad: str) -> int:
    if x == 2 and Path(bad).exists():
        raise ValueError(x)
    return x


def ended(run: Run) -> None:
    with suppress(TasksFailed):
        run.wait(timeout=60)


def test_a_run_that_has_ended_is_told_once_by_a_job_and_again_when_it_is_retried(
    tmp_path: Path,
) -> None:
    told, bad = tmp_path / "told", tmp_path / "bad"
    bad.touch()
    wf = Workflow("study", tmp_path, source=__file__)
    wf.add(work, x=each([1, 2], axis="x"), bad=str(bad))
    line = f'{{ echo "$HPCPIPE_VERDICT"; grep work; }} >>{told}'
    drafted = draft(wf, SITE, Options(notify=line))
    assert f"When it has ended, a small job runs: {line}" in [*plan_lines(drafted, "")]
    run = submit(wf, site=SITE, notify=line)
    ended(run)
    until(lambda: told.exists() and "work" in told.read_text(), 60)
    first = told.read_text()
    assert first.startswith("study finished: 1 of 2 tasks failed\n")
    notify(run.rundir)
    assert told.read_text() == first
    bad.unlink()
    run = retry(run.rundir.folder, site=SITE)[0]  # keeps what is to be run
    ended(run)
    until(lambda: "all 2 tasks succeeded" in told.read_text(), 60)
    assert told.read_text().count("study finished") == 2


def test_who_retries_while_the_command_runs_leaves_its_job_alone(lab: Lab, tmp_path: Path) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    lab.workflow.command(["test", "-e", str(tmp_path / "mended")], name="work")
    line = f"touch {began}; until [ -e {go} ]; do sleep 0.05; done"
    submit(lab.workflow, site=lab.site, notify=line)
    assert lab.run("work").status == 1
    lab.scheduler.says["1"] = FAILED
    job = next_one(lab)
    telling = Thread(target=run(lab, job))
    telling.start()
    try:
        until(began.exists)
        retry(lab.rundir.folder, site=lab.site)
        assert job in lab.scheduler.live
    finally:
        go.touch()
        telling.join(30)
    left = Ledger(lab.rundir.ledger).read().continuations()
    assert len(left) == 2  # those of the retry
    assert job not in [one.job for one in left]


@pytest.fixture
def kill_anywhere(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Iterator[int]]:
    """Have a run of one task end, and kill its continuation at each step in turn."""
    skip_naps(monkeypatch)
    deadly = make_deadly(lab, monkeypatch)

    def kill(notify: str) -> Iterator[int]:
        lab.workflow.command("echo", name="work")
        submit(lab.workflow, site=lab.site, notify=notify)
        assert lab.run("work").status == 0
        lab.scheduler.says["1"] = DONE
        saved = shutil.copytree(lab.rundir.folder, tmp_path / "saved")
        jobs, says = dict(lab.scheduler.jobs), dict(lab.scheduler.says)
        first = next_one(lab)
        for at in count():
            shutil.rmtree(lab.rundir.folder)
            shutil.copytree(saved, lab.rundir.folder)
            lab.scheduler.jobs, lab.scheduler.says = dict(jobs), dict(says)
            steps = deadly(at, run(lab, first))
            go_on(lab, first)
            yield at
            if steps <= at:  # it came to its end
                break

    return kill


def test_killed_anywhere_its_stand_in_tells_once(
    lab: Lab, tmp_path: Path, kill_anywhere: Callable[[str], Iterator[int]]
) -> None:
    told = tmp_path / "told"
    for at in kill_anywhere(f"echo told >>{told}"):
        assert told.read_text() == "told\n", at
        assert not lab.scheduler.live, at
        told.unlink()


def test_killed_anywhere_its_stand_in_has_the_scheduler_mail_once(
    lab: Lab, kill_anywhere: Callable[[str], Iterator[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.scheduler, "capabilities", Capabilities(mail=True))
    for at in kill_anywhere("mail:ada@example.org"):
        [mail] = [name for name, job in lab.scheduler.jobs.items() if job.batch == "+mail-1"]
        assert [*lab.scheduler.live] == [mail], at
        assert Ledger(lab.rundir.ledger).read().submissions["+mail-1"].job == mail
    script = lab.rundir.script("+mail-1").read_text()
    assert "--name=succeeded.lab-1\n" in script
    assert " 'lab (run 1)   finished: 1 task succeeded' " in script
    assert cancel(lab.rundir).tasks == 0
    assert not lab.scheduler.live


def test_what_will_not_be_retried_is_told_as_failed_while_the_continuation_still_runs(
    lab: Lab, tmp_path: Path
) -> None:
    told, scan = tmp_path / "told", tmp_path / "scan"
    scan.write_text("before")
    lab.workflow.command("cat {scan}", name="work", scan=scan, resources={"retries": 1})
    submit(lab.workflow, site=lab.site, notify=f'echo "$HPCPIPE_VERDICT" >{told}')
    lab.scheduler.says["1"] = FAILED
    scan.write_text("its plan is out of date")
    run(lab, next_one(lab))()
    assert told.read_text() == "lab finished: its only task failed\n"


@pytest.mark.parametrize(
    ("notify", "why"),
    [
        ("mail", "local sends no mail; give a command that does: --notify 'mail -s"),
        ("mail:ada@example.org", "local sends no mail"),
        *(
            (f"mail:{to}", "not an address")
            for to in ("", "ada", "-ada@b", "a b@c", "a'@b", "a@b\n")
        ),
    ],
)
def test_mail_that_could_not_be_sent_is_refused_before_anything_is_submitted(
    lab: Lab, notify: str, why: str
) -> None:
    lab.workflow.command("echo", name="work")
    with pytest.raises(UsageError, match=why):
        submit(lab.workflow, site=lab.site, notify=notify)
    assert not lab.rundir.exists
    assert not lab.scheduler.jobs


def test_a_plan_says_whom_the_scheduler_mails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.scheduler, "capabilities", Capabilities(mail=True))
    lab.workflow.command("echo", name="work")
    for how, whom in (("mail", "you"), ("mail:ada@example.org", "ada@example.org")):
        lines = [*plan_lines(draft(lab.workflow, lab.site, Options(notify=how)), "")]
        assert f"When it has ended, the scheduler mails {whom}." in lines


def test_a_run_without_it_has_no_job_more(tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path, source=__file__)
    wf.add(work, x=each([1, 2], axis="x"), bad="")
    run = submit(wf, site=SITE)
    ended(run)
    assert not [*run.rundir.batches.glob("+continue*")]


def test_where_no_job_may_submit_one_the_plan_says_that_nobody_is_told(tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path, source=__file__)
    wf.add(work, x=1, bad="")
    site = Site(nodes=Nodes(may_submit=False))
    lines = [*plan_lines(draft(wf, site, Options(notify="true")), "")]
    assert any("no notice is sent at its end" in line for line in lines)


def test_mail_that_the_scheduler_refuses_is_told_in_the_log_and_not_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise SchedulerError("Invalid --mail-user")

    monkeypatch.setattr(lab.scheduler, "capabilities", Capabilities(mail=True))
    lab.workflow.command("echo", name="work")
    submit(lab.workflow, site=lab.site, notify="mail")
    assert lab.run("work").status == 0
    lab.scheduler.says["1"] = DONE
    lab.scheduler.hook = refuse
    run(lab, next_one(lab))()
    assert capsys.readouterr().err == "hpcpipe: notify: Invalid --mail-user\n"
    history = Ledger(lab.rundir.ledger).read()
    assert (history.adrift(), history.continuations()) == ([], [])
    lab.scheduler.hook = lambda _: None
    notify(lab.rundir)
    assert "+mail-1" not in {job.batch for job in lab.scheduler.jobs.values()}
