"""What the shell's completion offers, and the list of runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from fakes import Lab

from hpcpipe.cli import hpcpipe, main
from hpcpipe.graph.each import each

SITE = """
scheduler = "slurm"
[[queues]]
name = "short"
[[queues]]
name = "long"
[accounts.ada_lab]
"""


def good(subject: str) -> str:
    return subject


@pytest.fixture
def studied(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workflow's file, a site file, and a run of two nodes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    Path("alps.toml").write_text(SITE)
    Path("flow.py").touch()
    done = lab.workflow.add(good, name="normalize", subject=each(["SAD01", "SAD02"]))
    lab.workflow.add(good, name="collect", subject=done.gather())
    lab.submit()
    return lab.rundir.folder


@pytest.mark.usefixtures("studied")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sta", "status"),
        ("explain ", "normalize collect"),
        ("explain no", "normalize"),
        ("explain normalize", "normalize normalize/SAD01 normalize/SAD02"),
        ("logs normalize/SAD02", "normalize/SAD02"),
        ("logs SAD0", "SAD01 SAD02"),
        ("results coll", "collect"),
        ("cancel --yes normalize/SAD01 col", "collect"),
        ("status --run ../ru", "../runs/lab"),
        ("status --run ../runs/x", "DIR"),
        ("explain --run ../runs/lab no", "normalize"),
        ("explain --run ../nothing no", ""),
        ("submit --site loc", "FILE local"),
        ("submit --site alps.toml --queue ", "short long"),
        ("retry --site alps.toml --account a", "ada_lab"),
        ("submit fl", "FILE"),
        ("submit flow.py da", "FILE"),
        ("map --lines fl", "FILE"),
        ("map -- gzip {} ::: fl", "FILE"),
        ("plan --prefer s", "soonest"),
        ("site init --scheduler sl", "slurm"),
        ("site doctor --site loc", "FILE local"),
        ("completion z", "zsh"),
    ],
)
def test_a_word_is_completed(shell: str, typed: str, offered: str) -> None:
    kind = get_completion_class(shell)
    assert kind is not None
    *words, start = typed.split(" ")
    found = kind(hpcpipe, {}, "hpcpipe", "_HPCPIPE_COMPLETE").get_completions(words, start)
    assert [one.type.upper() if one.type != "plain" else one.value for one in found] == (
        offered.split()
    )


SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SET_UP = {
    "bash": 'eval "$(hpcpipe completion bash)"',
    "zsh": 'autoload -U compinit; compinit -D -u; eval "$(hpcpipe completion zsh)"',
    "fish": "hpcpipe completion fish | source",
}


@pytest.mark.usefixtures("studied")
@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_itself_completes_it(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    ours = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": ours, "TERM": "dumb", "INPUTRC": "/dev/null"}
    typed = ("explain coll", "submit fl", "status --run ../ru", "submit --site alp")
    said = "".join(f"hpcpipe {words}\t >>{tmp_path}/said\n" for words in typed)
    echo = "function hpcpipe; echo $argv; end" if shell == "fish" else 'hpcpipe() { echo "$@"; }'
    script = f"{SET_UP[shell]}\n{echo}\n{said}exit\n"
    wrapped = [sys.executable, "-c", f"import pty; pty.spawn({SHELLS[shell]!r})"]
    subprocess.run(wrapped, input=script.encode(), env=environ, capture_output=True, timeout=60)
    assert (tmp_path / "said").read_text().splitlines() == [
        "explain collect", "submit flow.py", "status --run ../runs/lab", "submit --site alps.toml",
    ]  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*words])
    return capsys.readouterr().out


def test_runs_lists_those_submitted_and_those_below(
    studied: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "here" / "it's another"
    shutil.copytree(studied, other)
    os.utime(other / ".hpcpipe" / "ledger.jsonl", (0, 0))
    broken = tmp_path / "here" / "broken"
    (broken / ".hpcpipe").mkdir(parents=True)
    (broken / ".hpcpipe" / "ledger.jsonl").touch()
    listed = json.loads(printed(capsys, "runs", "--json"))
    assert [Path(run["folder"]) for run in listed] == [broken, studied, other]
    assert [run["tasks"] for run in listed] == [None, 3, 3]
    *lines, hint = printed(capsys, "runs").splitlines()
    assert lines[0].startswith("broken       unreadable: nothing was submitted here yet")
    row = r"lab \(run 1\)  3 of 3 tasks still to end .* s ago  /.*/runs/lab"
    assert re.fullmatch(row, lines[1])
    assert re.fullmatch(r"lab \(run 1\) .* d ago  'it'\"'\"'s another'", lines[2])
    assert hint == "Next: hpcpipe status --run broken"
    words = shlex.split(lines[2])[-1]
    assert "3 of 3 tasks still to end" in printed(capsys, "status", "--run", words)
