"""Files that a task returned and that were changed afterwards: their readers fail, and say so."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe import each
from hpcpipe.errors import ResultError
from hpcpipe.graph.node import Node, Output
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run, retry
from hpcpipe.submit.prepare import draft
from hpcpipe.views.plan import plan_lines
from hpcpipe.views.status import verdict

KINDS = ["python", "command", "command pack"]


def make(i: int) -> Path:
    Path("out.txt").write_text(f"v{i}\n" * 99)
    return Path("out.txt")


def read(file: Path) -> str:
    return file.read_text()[:2]


def read_all(files: list[Path]) -> str:
    return "".join(file.read_text()[:2] for file in files)


class Study:
    """Two tasks that make a file, and what reads these, in one of the kinds."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.lab, self.kind = lab, kind
        self.pack = {"pack": 2} if "pack" in kind else {}

    def make(self, name: str = "make") -> Node:
        numbers = each([1, 2], axis="i")
        if self.kind == "python":
            return self.lab.workflow.add(make, name=name, i=numbers)
        words = ["sh", "-c", 'for _ in 1 2 3; do echo "v$0"; done >"$1"', "{i}", "{output}"]
        asked: Any = self.pack
        return self.lab.workflow.command(
            words, name=name, i=numbers, outputs="out.txt", resources=asked
        )

    def read(self, files: Output | Node, *after: Node, name: str = "read") -> Node:
        if self.kind == "python":
            return self.lab.workflow.add(read, name=name, file=files, after=after)
        asked: Any = self.pack and {**self.pack, "cpus": 2}  # or both would be in one element
        words = ["sh", "-c", 'head -c 2 "$0" >"$1"', "{file}", "{output}"]
        return self.lab.workflow.command(
            words, name=name, file=files, outputs="read.txt", after=after, resources=asked
        )

    def run(self, *tasks: str, status: int = 0) -> None:
        for one in tasks:
            assert self.lab.run(one).status == status or self.pack
        says = self.lab.scheduler.says
        self.lab.scheduler.says = dict.fromkeys(says, JobEnd("COMPLETED", None, 0))

    def file(self, node: str = "make") -> Path:
        """Find the file of the first task."""
        [file] = self.lab.rundir.folder.glob(f"{node}/*1*/out.txt")
        return file


@pytest.fixture(params=KINDS)
def study(request: pytest.FixtureRequest, lab: Lab) -> Study:
    return Study(lab, request.param)


def later(file: Path, text: str) -> None:
    """Write a file so that its time is another one, whatever the clock's ticks."""
    was = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(was, was + 10**9))


def truncate(file: Path) -> None:
    was = file.stat()
    os.truncate(file, 4)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: later(file, ""),
    "overwritten": lambda file: later(file, file.read_text().replace("v", "w")),
    "truncated with its time": truncate,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_last_result_whose_file_was_changed_is_told_and_made_again(
    study: Study, change: Callable[[Path], object]
) -> None:
    lab = study.lab
    study.make()
    lab.submit()
    study.run("make/1", "make/2")
    change(study.file())
    run = Run(lab.rundir.folder)
    [task] = run.report().tasks
    words = f"{study.file()} was changed after make made it"
    assert (task.name, task.state) == ("make/1", State.LOST)
    assert (task.reason, task.words) == (Reason.CHANGED, words)
    assert list(run.results("make")) == ["2"]
    with pytest.raises(ResultError, match="was changed after make made it; make it again: hpcpipe"):
        run.result("make/1")
    planned = draft(lab.workflow, lab.site)
    assert f"  make/1: {words}" in [*plan_lines(planned, "")]
    assert [*planned.plan.nodes["make"].to_run] == [0]
    retry(lab.rundir.folder, site=lab.site)
    study.run("make/1")
    assert study.file().read_text().startswith("v1")
    assert "succeeded" in verdict(run.report())
    assert list(run.results("make")) == ["1", "2"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_who_reads_a_file_that_was_changed_fails_and_both_run_again(
    study: Study, change: Callable[[Path], object]
) -> None:
    lab = study.lab
    study.read(study.make())
    lab.submit()
    study.run("make/1", "make/2")
    change(study.file())
    study.run("read/1", status=1)
    study.run("read/2")
    tasks = {task.name: task for task in Run(lab.rundir.folder).report().tasks}
    words = tasks["read/1"].outcome["error"]
    assert f"input {study.file()}" in words
    assert "changed after" in words
    assert tasks["make/1"].reason is Reason.CHANGED
    assert sorted(tasks) == ["make/1", "read/1"]
    retry(lab.rundir.folder, site=lab.site)
    study.run("make/1", "read/1")
    assert "all 4 tasks succeeded" in verdict(Run(lab.rundir.folder).report())


def test_a_file_that_was_only_touched_or_copied_is_the_same(study: Study) -> None:
    lab = study.lab
    study.read(study.make())
    lab.submit()
    study.run("make/1", "make/2")
    copy = study.file().with_name("copy")
    shutil.copyfile(study.file(), copy)
    copy.replace(study.file())
    os.utime(study.file(), (1, 1))
    study.run("read/1", "read/2")
    assert "all 4 tasks succeeded" in verdict(Run(lab.rundir.folder).report())


def test_who_comes_after_one_that_changes_a_file_in_place_reads_it_so(study: Study) -> None:
    lab = study.lab
    made = study.make()
    edit = lab.workflow.command(
        ["sh", "-c", 'echo "$(cat "$0")" more >"$0.new"; mv "$0.new" "$0"', "{file}"],
        name="edit",
        file=made,
        resources=study.pack and {**study.pack, "cpus": 3},
    )
    study.read(made, edit)
    lab.submit()
    study.run("make/1", "make/2", "edit/1", "edit/2", "read/1", "read/2")
    assert "all 6 tasks succeeded" in verdict(Run(lab.rundir.folder).report())
    assert list(Run(lab.rundir.folder).results("make")) == ["1", "2"]


def append(i: int, file: str) -> Path:
    with open(file, "a") as shared:
        shared.write(f"{i}\n")
    return Path(file)


def test_a_file_that_several_tasks_of_a_node_write_is_as_the_last_one_left_it(lab: Lab) -> None:
    shared = Path("shared.txt").absolute()
    files = lab.workflow.add(append, i=each([1, 2, 3], axis="i"), file=str(shared))
    lab.workflow.add(read_all, files=files.gather("i"))
    lab.submit()
    for one in ("append/1", "append/2", "append/3", "read_all"):
        assert lab.run(one).status == 0
        time.sleep(0.01)
    assert "all 4 tasks succeeded" in verdict(Run(lab.rundir.folder).report())


def test_a_folder_that_is_returned_may_be_worked_in(lab: Lab) -> None:
    words = ["sh", "-c", 'mkdir -p "$0"; echo 1 >"$0/a"', "{output}"]
    made = lab.workflow.command(words, name="make", outputs="d")
    lab.workflow.command(["sh", "-c", 'echo 2 >"$0/b"', "{folder}"], name="work", folder=made)
    lab.submit()
    assert lab.run("make").status == 0
    [folder] = lab.rundir.folder.glob("make/**/d")
    (folder / "more").touch()
    assert lab.run("work").status == 0
