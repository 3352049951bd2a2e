"""What screens and errors suggest can be pasted: it is a command, and about the right run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from fakes import CANCELLED, Lab
from test_show import EXPLAINED, SCREENS

from hpcpipe.cli import hpcpipe, main
from hpcpipe.errors import SchedulerError
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.run import Run
from hpcpipe.store.recent import find_run
from hpcpipe.store.rundir import RunDir
from hpcpipe.views.status import explain_lines, status_lines

FLOW = """
from hpcpipe import Workflow, each, task

def good(i): return i
def bad(i): raise ValueError("no")
@task(memory="1G")
def after(x): return x
def slow(i): return i

wf = Workflow("lab", base_dir={base!r})
wf.add(good, i=each([1, 2]))
wf.add(after, x=wf.add(bad, i=each(["a", "b"])))
wf.add(slow, i=1)
"""
# A command ends where two spaces, a bar, or the sentence end.
_SUGGESTED = re.compile(r"(?<![\w./-])hpcpipe (?=[a-z])((?:(?!  | \||\. |; |, |: |\)|`)[^\n])+)")


def suggestions(text: str) -> Iterator[click.Context]:
    """Parse every command in a text as the command line does; raise if one is none."""
    for found in _SUGGESTED.findall(text):
        words = shlex.split(found.rstrip(".)"))
        group = hpcpipe.make_context("hpcpipe", [*words])
        name, command, rest = hpcpipe.resolve_command(group, words)
        assert command is not None
        if isinstance(command, click.Group):
            name, command, rest = command.resolve_command(group, rest)
            assert command is not None
        yield command.make_context(name, [*rest])


def check(text: str, folder: Path) -> int:
    """Check that all commands in a text are about the run in a folder; return how many."""
    count = 0
    for context in suggestions(text):
        if context.command.name not in ("submit", "plan", "map", "runs", "site", "show", "doctor"):
            assert find_run(context.params["run_folder"]).resolve() == folder.resolve(), text
        for name in ("name", "task"):
            if name in context.params:
                record = Run(folder).record
                task = context.params[name]
                assert record.find(task) or task in record.nodes, text
        count += 1
    return count


@pytest.mark.parametrize("name", [*SCREENS, *EXPLAINED])
def test_what_a_screen_suggests_is_a_command(name: str) -> None:
    lines = explain_lines(*EXPLAINED[name]) if name in EXPLAINED else status_lines(SCREENS[name])
    assert all(context.command for context in suggestions("\n".join(lines)))


@pytest.fixture
def study(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, submitted from a folder from which another one was submitted since."""
    monkeypatch.setenv("HPCPIPE_SITE", "local")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/")
    folder = tmp_path / "it's here"
    Path("flow.py").write_text(FLOW.format(base=str(folder)))
    lab.rundir = RunDir(folder / "lab")
    return folder / "lab"


def submit_both(study: Path, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Submit the run, and the other one after it."""
    assert check(said(capsys, "submit", "flow.py"), study) in (1, 3)
    lab.scheduler.hook = lambda _: None
    text = said(capsys, "map", "--name", "other", "echo", ":::", "1")
    assert check(text, Path("hpcpipe_runs/other")) == 3


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command to its end, and return all it printed."""
    with pytest.raises(SystemExit):
        main([*words])
    return "".join(capsys.readouterr())


COMMANDS = [
    ["status"],
    ["explain", "bad/a"],
    ["explain", "bad"],
    ["explain", "after/a"],
    ["explain", "good/1"],
    ["explain", "slow"],
    ["results", "good"],
    ["results", "bad"],
    ["results", "bad/a"],
    ["logs", "slow"],
    ["logs", "slo"],
    ["retry", "--software", "fsl>=6"],
    ["retry"],
    ["retry", "--reload"],
    ["retry"],
    ["cancel", "--yes"],
    ["status"],
]


def test_commands_about_another_run_suggest_commands_about_that_one(
    study: Path, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    submit_both(study, lab, capsys)
    for task in ("good/1", "bad/a", "bad/b"):
        lab.run(task)
    counts = {}
    for turn in ("running", "ended"):
        for words in COMMANDS:
            text = said(capsys, *words, "--run", str(study))
            counts[turn, *words] = check(text, study)
            if words[0] == "retry":
                lab.scheduler.says = dict.fromkeys(lab.scheduler.says, CANCELLED)
    assert sum(counts.values()) > 20, counts
    assert counts["running", "retry", "--reload"]
    assert counts["running", "retry", "--software", "fsl>=6"]
    assert counts["running", "results", "bad/a"]


def test_a_refusal_suggests_a_command_about_the_run_that_was_refused(
    study: Path, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise SchedulerError("sbatch: error: Invalid account or account/partition")

    lab.scheduler.hook = refuse
    submit_both(study, lab, capsys)
    for words in (["status"], ["explain", "good/1"]):
        text = said(capsys, *words, "--run", str(study))
        assert "retry --account lab" in text
        assert check(text, study)
    text = said(capsys, "retry", "--account", "lab", "--run", str(study))
    assert check(text, study) == 3


def test_where_nobody_tells_the_accounts_a_refused_one_is_left_out(
    study: Path, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(step: str) -> None:
        if step == "submit":
            raise SchedulerError('job rejected: the requested project "nosuch" does not exist')

    lab.scheduler.hook, lab.scheduler.charged = refuse, ()
    said(capsys, "submit", "flow.py", "--account", "nosuch")
    text = said(capsys, "status", "--run", str(study))
    again = "retry --account ''"
    assert again in text
    lab.scheduler.hook = lambda _: None
    text = said(capsys, *shlex.split(again), "--run", str(study))
    assert check(text, study) == 3


def test_no_retry_is_suggested_that_no_queue_could_help(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site.toml"
    site.write_text('extends = "local"\n[[queues]]\nname = "q"\nmax_memory = "2G"\n')
    monkeypatch.setenv("HPCPIPE_SITE", str(site))
    lab.rundir = RunDir(Path("hpcpipe_runs/one"))
    for memory, words in (("1G", "retry   "), ("2G", "retry --memory 2048M   ")):
        said(capsys, "map", "--name", "one", "--memory", memory, "echo", ":::", "1")
        end = JobEnd("OUT_OF_MEMORY", Reason.MEMORY)
        lab.scheduler.says = dict.fromkeys(lab.scheduler.says, end)
        for screen in (said(capsys, "status", "--fresh"), said(capsys, "explain", "one/1")):
            assert f"hpcpipe {words}" in screen
            assert ("no queue gives more" in screen) == (memory == "2G")


@pytest.mark.parametrize("typed", ["", "runs", "status --run none", "map", "logs x"])
@pytest.mark.usefixtures("study")
def test_where_nothing_was_submitted_the_commands_are_right_too(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [*suggestions(said(capsys, *typed.split()))]
