"""What the words of a command stand for: files and own code that count, and those that may not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab

from hpcpipe import each
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.plan import freeze
from hpcpipe.run import Run
from hpcpipe.views.keys import key_lines

FILES = {
    "c.cfg": "c",
    "in.nii": "i",
    "out.nii": "o",
    "own.py": "import helper\n",
    "helper.py": "VALUE = 1\n",
    "pkg/__init__.py": "",
    "pkg/__main__.py": "from pkg import stats\n",
    "pkg/stats.py": "import helper\n",
    "lib/deep.py": "",
    "bin/tool": "#!/bin/sh\n",
    "script.py": "def f():\n    import helper\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "bin/tool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keys_of(words: Sequence[str], **values: Any) -> bytes:
    workflow = Workflow("w", "runs")
    workflow.command(list(words), name="work", **values)
    return freeze(workflow).nodes["work"].keys


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["app", "--config=c.cfg"], "c.cfg"),
        (["dd", "if=in.nii", "of=out.nii"], "in.nii"),
        (["python", "-m", "own"], "own.py"),
        (["python3.11", "-u", "-m", "own", "x"], "helper.py"),
        ([sys.executable, "-um", "pkg"], "pkg/__main__.py"),
        (["python", "-W", "ignore", "-mpkg.stats"], "pkg/__init__.py"),
        (["python", "-m", "pkg"], "helper.py"),
        (["python", "script.py"], "helper.py"),
        (["env", "PYTHONPATH=lib", "python", "-m", "deep"], "lib/deep.py"),
        (["env", "tool"], "bin/tool"),
        (["env", "-i", "A=1", "-u", "B", "tool"], "bin/tool"),
        (["env", "bin/tool"], "bin/tool"),
    ],
)
def test_a_file_counts_that_a_word_surely_stands_for(
    here: Path, words: Sequence[str], file: str
) -> None:
    before = keys_of(words)
    path = here / file
    path.write_text(path.read_text() + "# edited\n")
    assert keys_of(words) != before


def test_a_file_within_a_value_counts(here: Path) -> None:
    values = {"x": each(["-i=in.nii", "-i=c.cfg"], labels=["a", "b"])}
    before = keys_of(["app", "{x}"], **values)
    (here / "in.nii").write_text("edited")
    after = keys_of(["app", "{x}"], x=each(["-i=in.nii", "-i=c.cfg"], labels=["a", "b"]))
    assert (before[:16] == after[:16], before[16:] == after[16:]) == (False, True)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["app", "--output=out.nii"], "out.nii"),
        (["dd", "if=in.nii", "of=out.nii"], "out.nii"),
        (["scp", "host:in.nii", "x"], "in.nii"),
        (["sh", "-c", "cat in.nii | wc -l"], "in.nii"),
        (["python", "-c", "print(open('in.nii').read())"], "in.nii"),
        (["nice", "tool"], "bin/tool"),
        (["sh", "-c", "tool x"], "bin/tool"),
    ],
)
def test_what_a_word_may_stand_for_does_not_count_and_explain_says_so(
    here: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], file: str
) -> None:
    monkeypatch.chdir(here)
    before = keys_of(words)
    (here / file).write_text("#!/bin/sh\n# edited\n")
    assert keys_of(words) == before
    lab.workflow.command(list(words), name="work")
    lab.submit()
    [line] = [one for one in key_lines(Run(lab.rundir.folder).rundir, "work") if "not in it" in one]
    assert f"{file}, which the command may use" in line


def test_an_edit_of_own_code_before_the_task_runs_is_seen_on_the_node(
    here: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    lab.workflow.command([sys.executable, "-m", "own"], name="work")
    lab.submit()
    (here / "helper.py").write_text("VALUE = 2\n")
    assert lab.run("work").status == 1
    assert "helper.py changed since it was planned" in lab.outcome("work")["error"]
