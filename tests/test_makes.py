"""Files that a command must leave by outputs= or --makes: made by this very try, and not empty."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe.errors import WorkflowError
from hpcpipe.frontends.map import map_workflow
from hpcpipe.jobs import JobEnd, Reason, State
from hpcpipe.run import Run, retry

EARLIER = "ended well but left {} as an earlier try had made it: remove it to have it made"
ENDS: dict[str, tuple[str, str]] = {  # what the command does, and what is said
    "made": ('echo x >"$1"', ""),
    "missing": (":", "ended well but did not make {}"),
    "empty": (': >"$1"', "ended well but made {} empty"),
    "left over": (
        'if [ ! -e ../../tried ]; then touch ../../tried; echo x >"$1"; exit 3; fi',
        EARLIER,
    ),
}


@pytest.mark.parametrize("kind", ["outputs", "python", "makes"])
@pytest.mark.parametrize("end", ENDS)
def test_an_output_must_be_made_by_this_try_and_hold_something(
    lab: Lab, kind: str, end: str
) -> None:
    code, words = ENDS[end]
    code = code.replace("../../tried", str(Path("tried").absolute()))
    if kind == "makes":
        argv = ["sh", "-c", code, "sh", "{.}.out", ":::", "a b.txt"]
        lab.workflow = map_workflow(
            argv, makes=["{.}.out"], name="work", base_dir=str(lab.rundir.folder.parent)
        )
        lab.rundir = type(lab.rundir)(lab.workflow.folder)
        out, task = (
            Path("a b.out").absolute(),
            "work/" + lab.workflow.nodes["work"].axes[0].labels[0],
        )
    else:
        # What depends on a Python task is run by Python.
        above = lab.workflow.add(os.getpid, name="above") if kind == "python" else "x"
        argv = ["sh", "-c", code, "{above}", "{output}"]
        lab.workflow.command(argv, name="work", above=above, outputs="out.txt")
        out, task = lab.rundir.folder / "work" / "out.txt", "work"
    lab.submit()
    if kind == "python":
        assert lab.run("above").status == 0
    done = lab.run(task)
    if end == "left over":
        assert done.status == 1
        lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("FAILED", Reason.EXIT, 1))
        retry(lab.rundir.folder, site=lab.site)
        done = lab.run(task)
    assert done.status == int(bool(words))
    said = lab.outcome(task).get("error") or ""
    name = out if kind != "outputs" else out.name
    assert said in (words.format(name), words.format(os.path.relpath(out)))
    assert words.format(out) in done.err


def test_what_map_made_is_its_result_and_is_made_again_when_it_is_gone(lab: Lab) -> None:
    for name in "ab":
        Path(f"{name}.txt").write_text(name)
    argv = ["cp", "{}", "{.}.out", ":::", "a.txt", "b.txt"]
    lab.workflow = map_workflow(argv, makes=["{.}.out"], base_dir=str(lab.rundir.folder.parent))
    lab.rundir = type(lab.rundir)(lab.workflow.folder)
    lab.submit()
    first, second = (f"cp/{label}" for label in lab.workflow.nodes["cp"].axes[0].labels)
    for task in (first, second):
        assert lab.run(task).status == 0
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    run = Run(lab.rundir.folder)
    assert run.result(first) == Path("a.out").absolute()
    Path("b.out").unlink()
    [lost] = run.report().tasks
    assert (lost.name, lost.state, lost.reason) == (second, State.LOST, Reason.GONE)
    retry(lab.rundir.folder, site=lab.site)
    assert lab.run(second).status == 0
    assert Path("b.out").read_text() == "b"


def test_a_line_is_known_by_its_words(lab: Lab) -> None:
    lines = {"jobs": "cp 'a b.txt' a.out # good\n: b.txt b.out; true\n"}
    Path("a b.txt").write_text("a")
    base = str(lab.rundir.folder.parent)
    lab.workflow = map_workflow([], lines="jobs", makes=["{3.}.out"], base_dir=base, texts=lines)
    lab.rundir = type(lab.rundir)(lab.workflow.folder)
    lab.submit()
    tasks = [f"jobs/{label}" for label in lab.workflow.nodes["jobs"].axes[0].labels]
    assert [lab.run(task).status for task in tasks] == [0, 1]
    assert lab.outcome(tasks[1])["error"] == "ended well but did not make b.out"


@pytest.mark.parametrize(
    ("line", "makes", "words"),
    [
        ("cp a $HOME/b", "{3}", r"only a shell knows what \$HOME/b is"),
        ("cp a b; ls", "{3}", "only a shell knows what b; is"),
        ("cp a 'b", "{3}", "No closing quotation"),
        ("cp a", "{3}", r"\{3\} refers to no input; a task has 2"),
        ("cp a b", "{}", "names 3 files; write {1}"),
    ],
)
def test_a_line_that_does_not_name_its_file_is_refused(line: str, makes: str, words: str) -> None:
    with pytest.raises(WorkflowError, match=words):
        map_workflow([], lines="jobs", makes=[makes], texts={"jobs": line})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"makes": ["all.txt"]}, "--makes all.txt: two tasks would make /.*/all.txt"),
        ({"makes": ["{3}"]}, r"\{3\} refers to no input"),
    ],
)
def test_a_pattern_that_names_no_file_of_one_task_is_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(WorkflowError, match=words):
        map_workflow(["echo", "{}", ":::", "1", "2"], **options)
