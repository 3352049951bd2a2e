"""Files that a result names: they must be there when it is recorded, and when they are needed."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe import each, task
from hpcpipe.graph.node import Node
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run, retry
from hpcpipe.views.status import verdict


def make(i: int) -> Path:
    Path(f"out{i}.txt").write_text(f"v{i}")
    return Path(f"out{i}.txt")


def never_made(nested: bool) -> Any:
    path = Path("a.txt").absolute()
    return {"all": [path]} if nested else path


def split(i: int) -> dict[str, list[Path]]:
    Path("vol.txt").write_text(f"v{i}")
    return {"all": glob("*.txt")}  # type: ignore[dict-item]


def promised() -> Path:
    return "b.txt"  # type: ignore[return-value]


def read(file: Path) -> str:
    return file.read_text()


def later(file: Path) -> int:
    return len(file.read_text())


def files_of(lab: Lab, kind: str) -> Node:
    if kind == "python":
        return lab.workflow.add(make, i=each([1, 2], axis="i"))
    words = ["sh", "-c", 'printf "v$0" >"$1"', "{i}", "{output}"]
    return lab.workflow.command(words, name="make", i=each([1, 2], axis="i"), outputs="out.txt")


def run_all(lab: Lab, *tasks: str) -> None:
    for one in tasks:
        assert lab.run(one).status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))


def purge(lab: Lab) -> Path:
    [gone] = [
        file for file in (lab.rundir.folder / "make").glob("*/out*.txt") if "v1" in file.read_text()
    ]
    gone.unlink()
    return gone


@pytest.mark.parametrize("nested", [False, True])
def test_a_path_that_is_returned_and_not_there_fails_the_task(lab: Lab, nested: bool) -> None:
    lab.workflow.add(never_made, nested=nested)
    lab.submit()
    assert lab.run("never_made").status == 1
    error = lab.outcome("never_made")["error"]
    assert error.startswith("it returned /")
    assert error.endswith("a.txt, which does not exist")


def test_text_that_is_returned_for_a_path_names_a_file_in_the_tasks_folder(lab: Lab) -> None:
    made = lab.workflow.add(split, i=each([1, 2], axis="i"))
    lab.workflow.add(read, file=made["all"][0])
    lab.workflow.add(promised)
    lab.submit()
    run_all(lab, "split/1", "split/2", "read/1", "read/2")
    assert [lab.value(f"read/{i}") for i in (1, 2)] == ["v1", "v2"]
    assert lab.run("promised").status == 1
    assert "b.txt, which does not exist" in lab.outcome("promised")["error"]


@pytest.mark.parametrize("kind", ["python", "command"])
@pytest.mark.parametrize("last", [True, False])
def test_a_result_whose_file_is_gone_is_made_again_where_it_is_relied_on(
    lab: Lab, kind: str, last: bool
) -> None:
    made = files_of(lab, kind)
    lab.submit()
    run_all(lab, "make/1", "make/2")
    gone = purge(lab)
    if not last:
        lab.workflow.add(later, file=made)
        lab.submit()
    else:
        [task] = Run(lab.rundir.folder).report().tasks
        assert (task.name, task.state, task.reason) == ("make/1", State.LOST, Reason.GONE)
        assert str(gone) in task.words
        retry(lab.rundir.folder, site=lab.site)
    run_all(lab, "make/1", *([] if last else ["later/1", "later/2"]))
    assert gone.read_text() == "v1"
    assert "succeeded" in verdict(Run(lab.rundir.folder).report())


@pytest.mark.parametrize("kind", ["python", "command"])
def test_a_file_that_nothing_needs_any_more_may_go(lab: Lab, kind: str) -> None:
    lab.workflow.add(read, file=files_of(lab, kind))
    lab.submit()
    run_all(lab, "make/1", "make/2", "read/1", "read/2")
    purge(lab)
    assert "all 4 tasks succeeded" in verdict(Run(lab.rundir.folder).report())


def test_an_input_that_is_not_there_is_named_when_it_is_planned(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.workflow.add(read, file=each([Path("a.nii"), Path("b.nii")]))
    lab.submit()
    here = Path.cwd()
    words = f"No such file: {here}/a.nii {here}/b.nii. A task that reads it will fail."
    assert words in caplog.messages


def upper(source: Path) -> Path:
    Path("out.txt").write_text(source.read_text().upper())
    return Path("out.txt")


@pytest.mark.parametrize("pack", [None, 2], ids=["alone", "in a pack"])
@pytest.mark.parametrize("kind", ["python", "sh"])
def test_a_result_does_not_count_once_another_version_has_its_folder(
    lab: Lab, kind: str, pack: int | None
) -> None:
    for name in ("S1", "S2"):
        Path(f"{name}.txt").write_text("x")

    def run(content: str, *tasks: str) -> str:
        Path("S1.txt").write_text(content)
        fresh = Lab(lab.rundir.folder.parent, lab.scheduler)
        source = each([Path("S1.txt"), Path("S2.txt")], axis="s")
        if kind == "python":
            fresh.workflow.add(task(pack=pack)(upper), source=source)
        else:
            words = ["sh", "-c", 'tr a-z A-Z <"$0" >"$1"', "{source}", "{output}"]
            asked = {"pack": pack} if pack else {}
            fresh.workflow.command(
                words, name="upper", source=source, outputs="out.txt", resources=asked
            )
        before = len(lab.scheduler.jobs)
        fresh.submit()
        assert (len(lab.scheduler.jobs) > before) == bool(tasks)
        run_all(fresh, *tasks)
        [made] = (lab.rundir.folder / "upper").glob("s-S1-*/out.txt")
        return made.read_text()

    both = ("upper/S1", "upper/S2") if pack is None else ("upper/S1",)
    assert run("a", *both) == "A"
    assert run("b", "upper/S1") == "B"
    assert run("a", "upper/S1") == "A"
    assert run("a") == "A"
