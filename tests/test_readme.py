"""The pages tell the truth: what they show is typed here, and must print what they say.

A comment stands before every block that is tried, in the order it is tried in::

    .. tested: file NAME              the block is that file
    .. tested: session                the lines after ``$`` are typed; the rest is what they print
    .. tested: failing session        the same, and the last command fails

``pytest tests/test_readme.py --update-golden`` writes the screens of all pages anew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest

import hpcpipe.cli
import hpcpipe.errors

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
# How many blocks each page has, so that a marker that is misspelt or lost is a failure.
PAGES = {
    "README.rst": 6,
    "docs/tutorial.rst": 10,
    "docs/workflows.rst": 4,
    "docs/map.rst": 8,
    "docs/direct.rst": 6,
    "docs/templates.rst": 3,
    "docs/commands.rst": 2,
    "docs/routing.rst": 5,
}
HOME = "/home/ada/study"  # on the pages, this stands for the folder, and node17 for this host
SECONDS = 120

_MARKER = re.compile(r"\.\. tested: (file (?P<file>\S+)|(?P<fails>failing )?session)")
# What may differ from run to run: times, memory used, digests in the names of batches, tokens.
_VARIES = (
    (re.compile(r"\b\d+(\.\d+)? s\b"), "T s"),
    (re.compile(r"(?<=used) +\d+ MB"), " M MB"),
    (re.compile(r"-[0-9a-f]{8}\b"), "-DIGEST"),
    (re.compile(r'(?<="files": )\d+|(?<="bytes": )\d+'), "N"),
    (re.compile(r":t[0-9a-f]{16}\b"), ":TOKEN"),
)


@dataclass(frozen=True)
class Block:
    """A block of a page: its place in lines, its text; the file it is, or whether it fails."""

    start: int
    end: int
    text: str
    file: str | None
    fails: bool


def blocks_of(page: Path) -> Iterator[Block]:
    """Find the blocks of a page that are marked to be tried."""
    lines = page.read_text("utf-8").splitlines()
    for at, line in enumerate(lines):
        marker = _MARKER.fullmatch(line)
        if marker is None:
            assert "tested:" not in line, f"line {at + 1}: a marker that cannot be read: {line}"
            continue
        assert lines[at + 1] == "", f"line {at + 2}: no empty line after the marker"
        _, kind, argument = lines[at + 2].split(" ")
        start = at + 4
        end = next((n for n in range(start, len(lines)) if re.match(r"\S", lines[n])), len(lines))
        if kind == "literalinclude::":
            text = (page.parent / argument).read_text("utf-8")
        else:
            assert kind == "code-block::", f"line {at + 3}: no code-block"
            text = dedent("\n".join(lines[start:end]))
        assert text.strip(), f"line {start + 1}: an empty block"
        yield Block(start, end, text.rstrip("\n"), marker["file"], bool(marker["fails"]))


def type_in(session: Block, folder: Path, environment: dict[str, str]) -> str:
    """Type the commands of a session; return them and what they print, as on a terminal."""
    commands = [line[2:] for line in session.text.splitlines() if line.startswith("$ ")]
    assert commands, f"line {session.start + 1}: no line of this session starts with $"
    typed = "\n".join(f"printf '$ %s\\n' {shlex.quote(one)}\n{one}" for one in commands)
    done = subprocess.run(
        ["sh", "-e", "-c", typed], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert bool(done.returncode) is session.fails, done.stdout
    printed = done.stdout.replace(str(folder), HOME).rstrip("\n")
    host = re.escape(os.uname().nodename)
    return re.sub(rf'(?<=\bon ){host}$|(?<="host": "){host}(?=")', "node17", printed, flags=re.M)


def await_runs(folder: Path, environment: dict[str, str]) -> None:
    """Wait until every run that was submitted from a folder has ended, well or not."""
    for ledger in folder.glob("*/*/.hpcpipe/ledger.jsonl"):
        watch = ("hpcpipe", "watch", "--run", str(ledger.parent.parent))
        done = subprocess.run(watch, env=environment, capture_output=True, timeout=SECONDS)
        assert done.returncode in (0, hpcpipe.errors.TasksFailed.exit_status), done.stderr


def try_page(page: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Do what a page says, in a folder of its own; give every session and what it printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "HPCPIPE_SITE": "local",
        "HPCPIPE_LOCAL": str(folder.with_name("spool")),
        "XDG_STATE_HOME": str(folder.with_name("state")),
        "XDG_CONFIG_HOME": str(folder.with_name("config")),
    }
    folder.mkdir()
    for block in blocks_of(page):
        if block.file is not None:
            (folder / block.file).parent.mkdir(exist_ok=True)
            (folder / block.file).write_text(block.text + "\n", encoding="utf-8")
            continue
        yield block, type_in(block, folder, environment)
        await_runs(folder, environment)


def write_screens(page: Path, screens: list[tuple[Block, str]]) -> None:
    """Replace the sessions of a page that print something else now."""
    lines = page.read_text("utf-8").split("\n")
    for block, printed in reversed(screens):
        if masked(printed) != masked(block.text):
            lines[block.start : block.end] = [*indent(printed, " " * 4).split("\n"), ""]
    page.write_text("\n".join(lines), "utf-8")


def masked(text: str) -> str:
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_is_really_printed(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = ROOT / name
    assert len([*blocks_of(page)]) == PAGES[name]
    screens = [*try_page(page, tmp_path / "study")]
    if request.config.getoption("--update-golden"):
        write_screens(page, screens)
        return
    for block, printed in screens:
        assert masked(printed) == masked(block.text), f"{name}, line {block.start + 1}"


def test_the_readme_has_the_workflow_of_the_tutorial() -> None:
    workflow, *_ = blocks_of(README)
    assert f"{workflow.text}\n" == (ROOT / "docs" / "signals.py").read_text("utf-8")


def test_the_readme_lists_every_command_and_exit_code_in_its_own_words() -> None:
    readme = README.read_text("utf-8")
    verbs = {verb: line for verb, (_, line) in hpcpipe.cli._VERBS.items()}
    assert dict(re.findall(r"^``(\w+)`` {2,}(\S.*)$", readme, re.M)) == verbs
    said = dict(re.findall(r"^(\d+) {2,}(\S.*)$", readme, re.M))
    kinds = [kind for kind in vars(hpcpipe.errors).values() if isinstance(kind, type)]
    errors = [k for k in kinds if vars(k).get("exit_status", 1) > 1]
    assert {str(vars(k)["exit_status"]): k.__doc__ for k in errors}.items() <= said.items()
