"""Inputs that are not what the plan saw when a task runs: no result is filed under the old key."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab, until

from hpcpipe import each
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.keys.fates import RUN
from hpcpipe.run import Run, retry
from hpcpipe.site import Queue
from hpcpipe.worker import inputs

ODD = "it's \\u00e9 ñ\n.txt"  # a name with what sh and pickles give a meaning
SLOW = """
    touch began; tries=0
    until [ -e go ] || [ $tries -gt 3000 ]; do tries=$((tries + 1)); sleep 0.01; done
"""


def read(file: Path, wait: bool = False) -> str:
    text = file.read_text()
    Path("began").touch()
    while wait and not Path("go").exists():
        time.sleep(0.01)
    return text.strip()


@pytest.fixture(params=["python", "command", "command pack", "script"])
def lay(request: pytest.FixtureRequest, lab: Lab) -> Callable[..., Path]:
    """Add a task that reads a file, and return the file."""

    def lay(*, wait: bool = False) -> Path:
        file = Path(ODD).absolute()
        file.write_text("A" if request.param != "script" else f"true\n{SLOW * wait}")
        os.utime(file, (time.time() - 100, time.time() - 100))
        if request.param == "python":
            lab.workflow.add(read, file=file, wait=wait, name="work")
            return file
        words: Any = ["sh", "-c", f'cat "$0"; {SLOW if wait else ""}', "{file}"]
        if request.param == "script":
            lab.workflow.command(["sh", str(file)], name="work")
        elif "pack" in request.param:
            limits = replace(lab.site.limits, max_jobs=1)
            lab.site = replace(lab.site, limits=limits, queues=(Queue(name="q"),))
            lab.workflow.command([*words, "{n}"], name="work", file=file, n=each([0, 1]))
        else:
            lab.workflow.command(words, name="work", file=file)
        return file

    return lay


def only(lab: Lab) -> str:
    node = lab.workflow.nodes["work"]
    return "work/0" if node.axes else "work"


def ended(lab: Lab) -> None:
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("FAILED", Reason.EXIT, 1))


@pytest.mark.parametrize("how", ["written", "time restored", "replaced", "same time", "gone"])
def test_a_file_that_changed_before_the_task_began_is_named(
    lab: Lab, lay: Callable[..., Path], how: str
) -> None:
    file = lay()
    before, was = file.read_text(), file.stat()
    lab.submit()
    new = file.with_name("new")
    new.write_text(before.replace(before[0], "#", 1))
    if how == "written":
        file.write_text(new.read_text())
    elif how == "time restored":
        file.write_text(new.read_text())
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    elif how == "gone":
        file.unlink()
    else:
        os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
        new.replace(file)
    lab.run(only(lab))
    ended(lab)
    run = Run(lab.rundir.folder)
    task = run.report().tasks[0]
    verb = "is gone" if how == "gone" else "changed"
    assert (task.reason, task.words) == (Reason.INPUT, f"input {file} {verb} since it was planned")
    file.write_text(before)
    shutil.copystat(file, file)
    retry(lab.rundir.folder, site=lab.site)
    lab.run(only(lab))
    assert run.result(only(lab)) in ("A", None)


def test_a_file_that_was_only_touched_or_copied_is_the_same(
    lab: Lab, lay: Callable[..., Path]
) -> None:
    file = lay()
    lab.submit()
    new = file.with_name("new")
    shutil.copy(file, new)
    new.replace(file)
    lab.run(only(lab))
    assert Run(lab.rundir.folder).result(only(lab)) in ("A", None)


def test_a_file_that_changes_while_the_task_runs_is_named(
    lab: Lab, lay: Callable[..., Path]
) -> None:
    file = lay(wait=True)
    lab.submit()
    with lab.start(only(lab)) as process:
        until(lambda: Path("began").exists())
        file.write_text("B\n")
        Path("go").touch()
        process.communicate(timeout=30)
    ended(lab)
    task = Run(lab.rundir.folder).report().tasks[0]
    assert (task.reason, task.words) == (Reason.INPUT, f"input {file} changed while the task ran")


def test_a_file_that_the_task_itself_removes_is_no_change(lab: Lab) -> None:
    file = Path("a.txt").absolute()
    file.write_text("A")
    lab.workflow.command("gzip {file}", name="work", file=file)
    lab.submit()
    assert lab.run("work").status == 0


@pytest.mark.parametrize("kind", ["python", "command"])
def test_where_files_count_by_their_time_one_that_was_touched_has_changed(
    lab: Lab, kind: str
) -> None:
    file = Path("a.txt").absolute()
    file.write_text("A")
    lab.workflow.files = "stat"
    if kind == "python":
        lab.workflow.add(read, file=file, name="work")
    else:
        lab.workflow.command("cat {file}", file=file, name="work")
    lab.submit()
    os.utime(file, (1, 1))
    assert lab.run("work").status == 1
    assert lab.outcome("work")["error"] == f"input {file} changed since it was planned"


@pytest.mark.parametrize("name", ["/", "/dev/zero", "unreadable"])
def test_a_word_that_names_what_cannot_be_read_whole_is_no_trap(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refused(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    Path("unreadable").mkdir()
    monkeypatch.setattr("hpcpipe.keys.file_digest.os.scandir", refused)
    lab.workflow.command("echo {word}", word=name, name="work")
    lab.submit()
    assert lab.run("work").out.decode().strip() == name


def test_a_folder_that_changed_after_it_was_planned_is_noticed_by_the_next_retry(lab: Lab) -> None:
    Path("scans").mkdir()
    lab.workflow.command("ls {folder}", folder=Path("scans"), name="work")
    lab.submit()
    Path("scans/late").touch()
    assert lab.run("work").out == b"late\n"
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, JobEnd("COMPLETED", None, 0))
    assert retry(lab.rundir.folder, site=lab.site)[1].plan.count(RUN) == 1


def test_a_file_that_is_as_it_was_is_not_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("a.txt").absolute()
    file.write_text("A")
    facts = os.stat(file)
    exact = facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "digest_content", lambda _: pytest.fail("read"))
        inputs.check([(str(file), exact, b"", True)], inputs.BEFORE)
    spy = Path("bin").absolute()
    spy.mkdir()
    (spy / "b2sum").write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || touch "{spy}/called"\nexec {shutil.which("b2sum")} "$@"\n'
    )
    (spy / "b2sum").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    lab.workflow.command("cat {file}", name="work", file=file)
    lab.submit()
    for touched in (False, True):
        if touched:
            os.utime(file, (1, 1))
        assert lab.run("work").status == 0
        assert (spy / "called").exists() == touched
        lab.find("work").good.unlink()
