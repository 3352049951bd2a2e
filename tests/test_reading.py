"""Workflow files are read up to the workflow that they would run, whichever kind it is."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from hpcpipe.cli import hpcpipe

NIPYPE = """
    import nipype.pipeline.engine as pe
    from nipype.interfaces.utility import Function

    def build(name):
        def touch(where):
            open(where, "w").close()
        wf = pe.Workflow(name, base_dir="work")
        node = pe.Node(Function(function=touch, input_names=["where"]), name="touch")
        node.inputs.where = "{folder}/ran"
        wf.add_nodes([node])
        return wf
"""
OURS = """
    from hpcpipe import Workflow

    def touch(where):
        open(where, "w").close()

    def build(name):
        wf = Workflow(name, "work")
        wf.add(touch, where="{folder}/ran")
        return wf
"""


@pytest.fixture(params=[NIPYPE, OURS], ids=["nipype", "ours"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a module that builds workflows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCPIPE_SITE", "local")
    monkeypatch.setenv("NIPYPE_NO_ET", "1")
    name = f"lab_{'nipype' if request.param is NIPYPE else 'ours'}"
    (tmp_path / f"{name}.py").write_text(dedent(request.param.format(folder=tmp_path)))
    return tmp_path / f"{name}.py"


def plan(lab: Path, *lines: str, spec: str = "study.py") -> Result:
    code = "\n".join((f"from {lab.stem} import build", *lines))
    (lab.parent / "study.py").write_text(code + "\n")
    return CliRunner().invoke(hpcpipe, ["plan", spec])


def test_nothing_runs_while_a_file_is_read_whoever_imports_nipype(lab: Path) -> None:
    done = plan(lab, "wf = build('one')", "wf.run()", "raise SystemExit('never comes here')")
    assert done.exit_code == 0, done.output
    assert "one: 1 task to run" in done.stdout
    assert [file.name for file in lab.parent.glob("[rw]*")] == []  # neither "ran" nor "work"


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (["b.run()"], "study.py:6: b is left out: the file is read up to the first workflow that"),
        (["c = build('c')", "c.run()"], "study.py:7: c is left out"),
        (["a.run()", "os.run()"], ""),
    ],
)
def test_a_second_workflow_that_a_file_runs_is_named(
    lab: Path, lines: list[str], note: str
) -> None:
    lines = ["import os", "a = build('a')", "b = build('b')", "a.run()", *lines]
    done = plan(lab, *lines)
    assert "a: 1 task to run" in done.stdout
    assert note in done.stderr
    assert bool(note) == bool(done.stderr)
    chosen = plan(lab, *lines, spec="study.py:b")
    assert "b: 1 task to run" in chosen.stdout
    assert not chosen.stderr


def test_of_a_loop_the_first_is_taken_and_the_rest_named(lab: Path) -> None:
    done = plan(lab, "for name in 'ab':", "    build(name).run()")
    assert "a: 1 task to run" in done.stdout
    assert "study.py:3: of the workflows of this loop only the first is taken" in done.stderr
