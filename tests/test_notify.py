"""Telling a person that a run has ended: once, from the queue, whatever became of it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from deadly import make_deadly, skip_naps
from fakes import Lab, until
from test_continuation import DONE, go_on, next_one, run

from hpcpipe import each
from hpcpipe.errors import TasksFailed
from hpcpipe.graph.workflow import Workflow
from hpcpipe.notify import notify
from hpcpipe.run import Run, retry, submit
from hpcpipe.site import Limits, Nodes, Site
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


def test_killed_anywhere_its_stand_in_tells_once(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_naps(monkeypatch)
    deadly = make_deadly(lab, monkeypatch)
    told, saved = tmp_path / "told", tmp_path / "saved"
    lab.workflow.command("echo", name="work")
    submit(lab.workflow, site=lab.site, notify=f"echo told >>{told}")
    assert lab.run("work").status == 0
    lab.scheduler.says["1"] = DONE
    shutil.copytree(lab.rundir.folder, saved)
    jobs, says = dict(lab.scheduler.jobs), dict(lab.scheduler.says)
    first = next_one(lab)
    for at in range(deadly(command=run(lab, first)) + 1):
        shutil.rmtree(lab.rundir.folder)
        shutil.copytree(saved, lab.rundir.folder)
        told.unlink()
        lab.scheduler.jobs, lab.scheduler.says = dict(jobs), dict(says)
        deadly(at, run(lab, first))
        go_on(lab, first)
        assert told.read_text() == "told\n", at
        assert [*lab.scheduler.live] == [], at


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
    assert any("nothing is run when it has ended" in line for line in lines)
