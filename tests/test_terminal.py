"""What terminals and pipes get: text that others wrote is shown there, and never obeyed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from test_show import failed, report

from hpcpipe.jobs import Reason, State
from hpcpipe.printable import printable
from hpcpipe.views.status import change_lines, explain_lines, status_lines
from hpcpipe.views.text import cut, shown

OURS = re.compile(r"\x1b\[(?:\d+F|J|\?7[lh])")  # what the live view redraws itself with
FLOW = r"""
import sys, time
from hpcpipe import Workflow, each

def node_fails(i): raise ValueError("not in [/data/ds] by [age]:\x1b[31mred\x1b[0m\x07 \x9b2Jé日")
def waits(i): time.sleep(60)

wf = Workflow("odd", base_dir="work")
wf.add(node_fails, i=1)
if "wait" in sys.argv: wf.add(waits, i=each([1, 2]))
if __name__ == "__main__": wf.run(site="local")
"""


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("\x1b[1;31mred\x1b[0m \x9b2Jnot", "red not"),
        ("\x1b]0;title\x07a \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "a link"),
        ("\x1bPq#0\x1b\\b\x1b(B\x1bc", "b"),
        ("bell\x07 null\0 del\x7f next\x85", r"bell\x07 null\x00 del\x7f next\x85"),
        ("10 %\r50 %\r99 %\r", "99 %"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("name\udcff", r"name\udcff"),
        ("[/data/ds] [red]é日[/red]\t{x}", "[/data/ds] [red]é日[/red]\t{x}"),
        ("\x1b[31", "31"),
    ],
)
def test_a_line_that_others_wrote_is_shown_as_text(said: str, seen: str) -> None:
    assert printable(said) == seen
    assert printable(seen) == seen


def test_what_a_terminal_cannot_show_is_spelled_out() -> None:
    assert shown("é 日 …\nnext", "latin-1") == "é \\u65e5 ...\nnext"
    assert shown("é 日 …", "utf-8") == "é 日 …"


def test_a_line_is_cut_where_it_tells_least() -> None:
    line = "why   1  error  normalize: SAD55  \"FileNotFoundError: '/data/study/T1/SAD55.mat'\""
    short = cut(line, 60)
    assert len(short) == 60
    assert short.startswith("why   1  error  normalize: SAD55  ")
    assert short.endswith("study/T1/SAD55.mat'\"")


@pytest.mark.parametrize("reason", Reason)
def test_no_screen_passes_on_what_a_task_or_a_scheduler_said(reason: Reason) -> None:
    task = failed("n/a", reason, "one\x1b[31m\x07\x9b2J\ntwo\x1b]0;t\x07\r\0")
    at = report({"n": {State.FAILED: 1}}, [task])
    facts = {"tail": ["\x1b[2J\x07tail"], "files": ["/data/\x1b[31mx"]}
    lines = [*status_lines(at), *change_lines(None, at), *explain_lines(task, at, facts)]
    assert all(line.isprintable() for line in shown("\n".join(lines)).split("\n"))


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment of commands about a workflow whose error has odd words."""
    (tmp_path / "flow.py").write_text(FLOW, "utf-8")
    state = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HPCPIPE_SITE": "local",
    }
    environ = {**os.environ, **state, "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
    yield environ
    words = [sys.executable, "-m", "hpcpipe", "cancel", "--yes"]
    subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, timeout=60)


def typed(words: list[str], folder: Path, environ: Mapping[str, str], keys: str = "") -> str:
    """Return what a command shows on a terminal, and its exit status in the last line.

    The keys are typed once the screen has a table.
    """
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, *words], {**environ})
    output, until = b"", time.monotonic() + 60
    while time.monotonic() < until and select.select([terminal], [], [], 60)[0]:
        try:
            output += os.read(terminal, 4096) or b""
        except OSError:  # it has ended
            break
        if keys and re.search(rb"waits( +2|: \d [a-z])", output):
            os.write(terminal, keys.encode())
            keys = ""
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return f"{output.decode()}\n{status}"


@pytest.mark.parametrize("term", ["xterm", "dumb", ""])
def test_a_terminal_shows_the_words_of_an_error(
    odd: Mapping[str, str], tmp_path: Path, term: str
) -> None:
    words = ["-m", "hpcpipe", "run", "flow.py"]
    output = typed(words, tmp_path, {**odd, "TERM": term, "COLUMNS": "120"})
    assert output.endswith("\n10")
    assert ("\x1b" in output) == (term == "xterm")
    text = OURS.sub("", output).replace("\r\n", "\n")
    assert "not in [/data/ds] by [age]:red" in text
    assert "node_fails" in text
    assert re.search(r"error +(.*)node_fails", text) or "node_fails: error" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("words", ["-m hpcpipe run flow.py wait", "flow.py wait"])
def test_an_interrupt_ends_the_command_and_not_the_tasks(
    odd: Mapping[str, str], tmp_path: Path, words: str, term: str
) -> None:
    output = typed(words.split(), tmp_path, {**odd, "TERM": term}, "\x03")
    assert "Watch them again with: hpcpipe watch\r\n" in output
    assert output.endswith("\n130") if "hpcpipe" in words else "KeyboardInterrupt" in output
    shown = [sys.executable, "-m", "hpcpipe", "status", "--json"]
    said = subprocess.run(shown, cwd=tmp_path, env=odd, capture_output=True, text=True, timeout=60)
    assert '"finished": false' in said.stdout


def test_a_pipe_gets_the_same_text_in_any_locale(odd: Mapping[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hpcpipe", "run", "flow.py"]
    subprocess.run(words, cwd=tmp_path, env=odd, capture_output=True, timeout=60)
    outputs = {}
    for encoding in ("utf-8", "latin-1", "ascii"):
        environ = {**odd, "PYTHONIOENCODING": encoding}
        for command in ("status", "watch", "explain node_fails", "retry --time 4"):
            words = [sys.executable, "-m", "hpcpipe", *command.split()]
            ran = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, timeout=60)
            outputs[encoding, command] = text = (ran.stdout + ran.stderr).decode(encoding)
            assert b"Traceback" not in ran.stderr
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "é日" in outputs["utf-8", "explain node_fails"]
    assert r"é\u65e5" in outputs["latin-1", "explain node_fails"]


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_a_command_works_where_the_shell_has_closed_its_streams(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    words = ["map", "--site", "local", "--name", "quiet", "--wait", "--", "true", ":::", "1"]
    shut = " ".join(f"{number}>&-" for number in closed)
    line = f'exec "$0" -m hpcpipe "$@" {shut}'
    done = subprocess.run(["sh", "-c", line, sys.executable, *words], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "hpcpipe_runs" / "quiet").is_dir()


def test_what_is_typed_is_done_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hpcpipe", "map", "--site", "local", "--name", "unread"]
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as gone:
        did = [*words, "--wait", "--", "true", ":::", "1"]
        done = subprocess.run(did, cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / "hpcpipe_runs" / "unread").is_dir()
        look = subprocess.run(
            [*words[:3], "status"], cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, check=False
        )
        assert (look.returncode, look.stderr) == (0, b"")
