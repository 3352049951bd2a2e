"""What people type: commands that are nearly right, and objects at Python's prompt."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import CANCELLED, FakeScheduler

import hpcpipe
from hpcpipe import Workflow, each
from hpcpipe.cli import main
from hpcpipe.run import Run


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCPIPE_SITE", "local")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("map", "give a command and inputs"),
        ("map -- gzip {} ::: *.nii", "*.nii: no file matches"),
        ("map -- gzip {2} ::: a", "{2} refers to no input"),
        ("map -- gzip {} :::: none.txt", "cannot read inputs from none.txt"),
        ("map --bids . -- fmriprep {subject}", "has no folder sub-…"),
        ("map --memory 4 -- gzip {} ::: a", "memory '4' has no unit; write 4G or 4M"),
        ("map --memroy 4G -- gzip {} ::: a", "Did you mean one of: '--memory', "),
        ("statsu", "no command 'statsu'; did you mean status?"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_right(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(typed.split())
    assert said in capsys.readouterr().err
    assert not Path("hpcpipe_runs").exists()


def test_a_dry_run_is_short_and_has_the_scripts_if_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = []
    for more in ([], ["--scripts"]):
        with pytest.raises(SystemExit, match="0"):
            main(["map", "--dry-run", *more, "--", "echo", "{}", ":::", "a"])
        outputs.append(capsys.readouterr().out)
    short, long = outputs
    assert len(short.splitlines()) < 12
    assert "1 task, each 1 cpu\n  first  echo a\n" in short
    assert long.startswith(short.removesuffix("--scripts prints the scripts, too.\n"))
    assert "#!/bin/sh" in long


@pytest.mark.parametrize(
    ("typed", "stdin", "seen"),
    [
        ("map --dry-run -- echo {}", "a\nb\n", "2 tasks, each 1 cpu\n  first  echo a\n"),
        ("map --dry-run echo", "a b\n", "1 task, each 1 cpu\n  first  echo 'a b'\n"),
        ("map --dry-run -a list echo {#} {}", "", "  last   echo 2 d\n"),
        ("map --dry-run -j4 echo ::: a b", "", "2 tasks, each 1 cpu\n"),
        ("map --dry-run --header : echo {x} ::: x a", "", "1 task, each 1 cpu\n  first  echo a\n"),
        ("map --dry-run --header echo {x} ::: x a", "", "1 task, each 1 cpu\n  first  echo a\n"),
        ("map --dry-run --link echo ::: a b ::: 1 2", "", "  last   echo b 2\n"),
        ("map --dry-run --colsep , echo {2} ::: a,b", "", "  first  echo b\n"),
    ],
)
def test_map_takes_the_options_of_gnu_parallel(
    typed: str, stdin: str, seen: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("list").write_text("c\nd\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit, match="0"):
        main(typed.split())
    assert seen in capsys.readouterr().out


def test_inputs_from_standard_input_are_kept_for_a_retry(
    monkeypatch: pytest.MonkeyPatch, scheduler: FakeScheduler
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    with pytest.raises(SystemExit, match="0"):
        main(["map", "-j", "1", "echo"])
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nothing is left to read
    scheduler.says = dict.fromkeys(scheduler.says, CANCELLED)
    with pytest.raises(SystemExit, match="0"):
        main(["retry", "--reload"])
    record = Run("hpcpipe_runs/echo").record
    [batch] = record.batches.values()
    assert record.names() == ["echo/a", "echo/b"]
    assert batch.resources.throttle == 1


def test_the_package_lists_its_names() -> None:
    """As a prompt completes them, before any was used."""
    words = [sys.executable, "-c", "import hpcpipe; print(*dir(hpcpipe))"]
    listed = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert {*hpcpipe.__all__, "spm"} <= {*listed.stdout.split()}


def test_objects_are_shown_without_their_values(tmp_path: Path) -> None:
    workflow = Workflow("study", tmp_path)
    many = each([f"S{n:05}" for n in range(10_000)])
    nodes = [workflow.command("echo {s}", name=f"echo_{n}", s=many) for n in range(20)]
    assert repr(workflow).startswith(f"<Workflow 'study' in {tmp_path}: echo_0, echo_1, ")
    assert repr(nodes[0]) == "<Node 'echo_0': s(10000)>"
    assert repr(many) == "<each of 10000: S00000, S00001, S00002, …>"
    assert max(len(repr(one)) for one in (workflow, many, nodes[0]["output"])) < 250
