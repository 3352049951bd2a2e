"""Other users who may write where a run or the local spool is kept get nothing executed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fakes import Lab

from hpcpipe import each
from hpcpipe.errors import SchedulerError
from hpcpipe.schedulers.base import launch
from hpcpipe.schedulers.local import Local
from hpcpipe.schedulers.local.spool import Spool
from hpcpipe.worker.outcome import UNTRUSTED, Refused
from hpcpipe.worker.task import TaskFile

ROOT = os.geteuid() == 0
STRANGER = 12345  # a user id that nobody here has
only_root = pytest.mark.skipif(not ROOT, reason="only root can act as another user")


def touch(log: str) -> None:
    Path(log).touch()


@pytest.fixture(params=["command", "python"])
def victim(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Lab:
    """A run whose one task would leave a file."""
    if request.param == "python":
        lab.workflow.add(touch, name="work", log=each([str(tmp_path / "ran")], labels=["a"]))
    else:
        lab.workflow.command(["touch", str(tmp_path / "ran")], name="work")
    lab.submit()
    return lab


def task_file(lab: Lab) -> Path:
    """Name its task file."""
    [file] = lab.rundir.batches.glob("*.tasks")
    return file


def swapped(lab: Lab) -> None:
    """Put another user's folder in place of a run's, as who may write in the one above it can."""
    mine = lab.rundir.home.with_name("moved")
    lab.rundir.home.rename(mine)
    shutil.copytree(mine, lab.rundir.home)
    for path in (lab.rundir.home, *lab.rundir.home.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    evil(lab)


def evil(lab: Lab) -> None:
    """Have the task file say something else, of the same length and name."""
    file = task_file(lab)
    file.chmod(0o600)
    said = file.read_bytes()
    other = said.replace(b"/ran", b"/pwn")  # in that of a Python task are only places in the plan
    file.write_bytes(other if other != said else said[:-1] + bytes([said[-1] ^ 1]))
    file.chmod(0o400)


def by_another(lab: Lab) -> None:
    os.chown(task_file(lab), STRANGER, STRANGER)


ATTACKS: list[tuple[Callable[[Lab], object], str]] = [
    (swapped, "/. is missing, or belongs to another user"),
    (by_another, ".tasks is missing, or belongs to another user"),
    (lambda lab: task_file(lab).unlink(), ".tasks is missing, or belongs to another user"),
    (lambda lab: lab.rundir.home.chmod(0o770), "can be written by other users"),
    (lambda lab: lab.rundir.batches.chmod(0o702), "can be written by other users"),
    (lambda lab: task_file(lab).chmod(0o420), "can be written by other users"),
    (evil, "was changed since it was submitted"),
    (lambda lab: next(lab.rundir.batches.glob("*.env")).chmod(0o602), "by other users"),
]


@pytest.mark.parametrize(("attack", "words"), ATTACKS)
def test_what_another_user_could_have_put_there_is_not_run(
    victim: Lab, attack: Callable[[Lab], object], words: str, tmp_path: Path
) -> None:
    if attack in (swapped, by_another) and not ROOT:
        pytest.skip("only root can act as another user")
    element = victim.find("work/a" if victim.workflow.nodes["work"].axes else "work")
    attack(victim)
    done = victim.run(element)
    assert done.status == UNTRUSTED
    assert done.err.startswith("hpcpipe: ")
    assert f"{words}" in done.err
    assert done.err.endswith(": nothing was run\n") or "chmod -R go-w" in done.err
    assert not [*tmp_path.rglob("ran"), *tmp_path.rglob("pwn")]


# In the order in which they are tried.
SUMS = ["b2sum", "sha256sum", "shasum"]


@pytest.mark.parametrize("kept", [one for one in SUMS if shutil.which(one)])
@pytest.mark.parametrize("changed", [False, True])
def test_a_job_compares_what_it_reads_with_what_the_node_has(
    victim: Lab, kept: str, changed: bool, tmp_path: Path
) -> None:
    """A node may lack any of the programs that compare digests, but not all."""
    for name in SUMS[: SUMS.index(kept)]:
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    if changed:
        evil(victim)
    element = victim.find("work/a" if victim.workflow.nodes["work"].axes else "work")
    done = victim.run(element, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.status == (UNTRUSTED if changed else 0)
    assert (tmp_path / "ran").exists() is not changed


def test_a_script_that_is_started_in_another_users_folder_runs_nothing(victim: Lab) -> None:
    [script] = victim.rundir.batches.glob("*.sh")
    there = "/" if not ROOT else str(foreign(victim.rundir.folder))
    done = subprocess.run(["sh", script], cwd=there, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (UNTRUSTED, "")
    assert "belongs to another user" in done.stderr


SCRIPT = "it's a script.sh"
LAUNCHED: list[tuple[Callable[[Path], object], int]] = [
    (lambda run: run.chmod(0o755), 7),
    (lambda run: run.chmod(0o770), UNTRUSTED),
    (lambda run: (run / "batches").chmod(0o702), UNTRUSTED),
    (lambda run: (run / "batches" / SCRIPT).chmod(0o720), UNTRUSTED),
    (lambda run: (run / "batches" / SCRIPT).unlink(), UNTRUSTED),
    (lambda run: os.chown(run, STRANGER, STRANGER), UNTRUSTED),
    (lambda run: os.chown(run / "batches" / SCRIPT, STRANGER, STRANGER), UNTRUSTED),
]


@pytest.mark.parametrize(("attack", "status"), LAUNCHED)
@pytest.mark.parametrize("shell", [(), ("/bin/sh",)])
def test_a_script_that_another_user_could_have_put_there_is_not_launched(
    attack: Callable[[Path], object], status: int, shell: Sequence[str], tmp_path: Path
) -> None:
    script = tmp_path / "batches" / SCRIPT
    script.parent.mkdir(mode=0o700)
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o700)
    try:
        attack(tmp_path)
    except PermissionError:
        pytest.skip("only root can act as another user")
    words = ("sh", "-c", launch(script, shell))
    assert subprocess.run(words, cwd=tmp_path, check=False).returncode == status


def foreign(folder: Path) -> Path:
    """Make a folder of another user's."""
    (folder / "foreign").mkdir()
    os.chown(folder / "foreign", STRANGER, STRANGER)
    return folder / "foreign"


@only_root
def test_a_worker_does_not_unpickle_another_users_task_file(tmp_path: Path) -> None:
    file = tmp_path / "x.tasks"
    file.write_bytes(b"")
    os.chown(file, STRANGER, STRANGER)
    with pytest.raises(Refused, match="another user owns it"):
        TaskFile(str(file), 0)


# The local scheduler's spool


def test_a_spool_in_a_place_that_others_can_change_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    Spool(shared / "host").root.mkdir(mode=0o700)
    with pytest.raises(SchedulerError, match=rf"could replace what is in it.*: {shared}\n"):
        Local(shared / "host").poll(["1"])
    shared.chmod(0o1777)  # as /tmp: only the owner of a folder can rename it there
    assert Local(shared / "host").poll(["1"]) == {}
    (shared / "host").chmod(0o770)
    with pytest.raises(SchedulerError, match="can write to it"):
        Local(shared / "host").cancel(["1"])


@only_root
def test_nothing_is_written_to_another_users_fifo(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "host")
    spool.make()
    os.mkfifo(spool.fifo)
    os.chown(spool.root, STRANGER, STRANGER)
    reader = os.open(spool.fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = tmp_path / "x.sh"
    script.write_text("#!/bin/sh\n")
    for verb in (
        lambda: Local(spool.root).poll(["1"]),
        lambda: Local(spool.root).account(["1"], 0),
        lambda: Local(spool.root).cancel(["1"]),
        lambda: Local(spool.root).find(["t"]),
        lambda: Local(spool.root).instance(),
        lambda: Local(spool.root).submit(script, token="t"),
    ):
        with pytest.raises(SchedulerError, match="another user owns it"):
            verb()
    writer = os.open(spool.fifo, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):  # nothing was written
        os.read(reader, 1)
    os.close(writer)
    os.close(reader)
