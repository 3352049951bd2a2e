"""A gather that goes on without those that failed: what it gets, and what is made of it later."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import until

from hpcpipe import each, task
from hpcpipe.errors import TasksFailed, WorkflowError
from hpcpipe.graph.workflow import Workflow
from hpcpipe.jobs import Reason, State
from hpcpipe.run import Run, retry, submit
from hpcpipe.site import Limits, Site
from hpcpipe.store.ledger import Ledger
from hpcpipe.views.explain import explain
from hpcpipe.views.status import report_json, status_lines, verdict

SITE = Site(limits=Limits(settle_seconds=0, poll_seconds=1))


def one(x: int, bad: str) -> int:
    if str(x) in Path(bad).read_text().split():
        raise ValueError(f"no {x}")
    return x


def grow(x: int) -> int:
    return 10 * x


def total(xs: list[int]) -> list[int]:
    return xs


def report(xs: list[int]) -> str:
    return f"{len(xs)} of them"


class Study:
    """Tasks of which those listed in a file fail, a step after them, and a group step."""

    def __init__(self, folder: Path, at_least: float | None = None, **resources: Any) -> None:
        self.bad = folder / "bad"
        wf = self.workflow = Workflow("study", folder, source=__file__)
        bad = str(self.bad)
        mark = task(**resources)
        first = wf.add(mark(one), x=each([1, 2, 3, 4], axis="x"), bad=bad)
        grown = wf.add(mark(grow), x=first)
        group = wf.add(total, xs=grown.gather("x", missing="skip", at_least=at_least))
        wf.add(report, xs=group)

    def run(self, *bad: int, site: Site = SITE) -> Run:
        self.bad.write_text(" ".join(map(str, bad)))
        return wait(submit(self.workflow, site=site))

    def retry(self, *bad: int, site: Site = SITE) -> Run:
        self.bad.write_text(" ".join(map(str, bad)))
        return wait(retry(self.workflow.folder, site=site)[0])


def wait(run: Run) -> Run:
    with suppress(TasksFailed):
        run.wait(timeout=60)
    return run


@pytest.mark.parametrize("packed", [False, True])
def test_a_group_step_runs_with_those_that_succeeded_and_again_with_all(
    tmp_path: Path, packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    study = Study(tmp_path, at_least=0.5, **({"pack": 2} if packed else {}))
    run = study.run(3)
    assert run.results("total") == {"": [10, 20, 40]}
    assert "total: made without grow/3" in caplog.messages
    assert run.result("report") == "3 of them"
    assert "report: made without grow/3" in caplog.messages
    now = run.report()
    assert verdict(now) == "finished: 2 of 10 tasks failed or were blocked"
    assert [(t.name, t.missing) for t in now.partial] == [("total", "grow/3"), ("report", "grow/3")]
    screen = [*status_lines(now)]
    assert "total succeeded without 1 task: grow/3" in screen
    assert report_json(now, str)["partial"][0] == {"task": "total", "without": ["grow/3"]}
    assert "  without    grow/3" in explain(run.rundir, "total")
    caplog.clear()
    run = study.retry(2)  # which has succeeded already
    assert run.report().total == {State.DONE: 10}
    assert run.report().partial == []
    assert run.results("total") == {"": [10, 20, 30, 40]}
    assert run.results("report") == {"": "4 of them"}
    assert "without" not in caplog.text


def test_without_others_it_is_made_anew_each_time_and_never_taken_for_the_whole(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path)
    assert study.run(3, 4).results("total") == {"": [10, 20]}
    run = study.retry(4)
    assert run.results("total") == {"": [10, 20, 30]}
    assert {one.missing for one in run.report().partial} == {"grow/4"}
    assert not [*(run.rundir.home / "results" / "total").glob("*.pkl")]


def test_fewer_than_enough_are_a_failure_of_its_own(tmp_path: Path) -> None:
    run = Study(tmp_path, at_least=0.75).run(3, 4)
    [failed] = [one for one in run.report().failures if one.node == "total"]
    assert failed.reason is Reason.FEW
    assert failed.words == "2 of 4 tasks of grow succeeded, 3 are needed; not grow/3 grow/4"
    assert run.report().counts["report"][State.BLOCKED] == 1


def test_all_of_them_make_the_result_of_a_plain_gather(tmp_path: Path) -> None:
    study = Study(tmp_path)
    run = study.run()
    assert run.report().partial == []
    plain = Workflow("study", tmp_path, source=__file__)
    above = plain.add(one, x=each([1, 2, 3, 4], axis="x"), bad=str(study.bad))
    plain.add(total, xs=plain.add(grow, x=above).gather("x"))
    assert not submit(plain, site=SITE).report().tasks


def test_a_command_takes_what_there_is(tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path, source=__file__)
    made = wf.command(
        ["sh", "-c", 'test {x} != 2 && echo {x} >"$0"', "{output}"],
        name="make",
        x=each([1, 2, 3], axis="x"),
        outputs="out",
    )
    wf.command("cat {files}", name="cat", files=made.gather(missing="skip", at_least=0.5))
    run = wait(submit(wf, site=SITE))
    assert [one.name for one in run.report().partial] == ["cat"]
    [log] = run.rundir.logs.glob("cat*.out")
    assert log.read_text().split() == ["1", "3"]


@pytest.mark.parametrize(
    "asked", [{"at_least": 0.5}, {"missing": "drop"}, {"missing": "skip", "at_least": 2}]
)
def test_a_gather_that_makes_no_sense_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    wf = Workflow("study", tmp_path)
    made = wf.add(grow, x=each([1, 2], axis="x"))
    with pytest.raises(WorkflowError, match="gather"):
        made.gather(**asked)


def once(x: int, seen: str) -> int:
    mark = Path(f"{seen}-{x}")
    if x == 3 and not mark.exists():
        mark.touch()
        raise ValueError(f"not yet {x}")
    if x == 4:
        raise ValueError("never")
    return x


def test_a_retry_in_the_queue_completes_what_was_made_without_some(tmp_path: Path) -> None:
    wf = Workflow("study", tmp_path, source=__file__)
    mark = task(retries=1, retry_if=["not yet"])
    first = wf.add(mark(once), x=each([1, 2, 3, 4], axis="x"), seen=str(tmp_path / "seen"))
    wf.add(total, xs=first.gather("x", missing="skip"))
    run = submit(wf, site=SITE)
    until(lambda: run.results("total") == {"": [1, 2, 3]}, 60)  # all that it can have
    wait(run)
    assert [one.missing for one in run.report().partial] == ["once/4"]
    runs = len(Ledger(run.rundir.ledger).read().runs)
    assert runs == 2


def test_a_retry_of_one_task_makes_the_group_step_again_with_what_there_is(tmp_path: Path) -> None:
    study = Study(tmp_path)
    run = study.run(3, 4)
    study.bad.write_text("3")
    wait(retry(run.rundir.folder, site=SITE, tasks=["one/4"])[0])
    assert run.results("total") == {"": [10, 20, 40]}
    assert run.results("report") == {"": "3 of them"}
