"""How files are written and read on a common filesystem, and who holds the lock."""

from __future__ import annotations

import errno
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import until

from hpcpipe.cli import main
from hpcpipe.errors import LockHeld, ResultError, UsageError
from hpcpipe.store.outcomes import Store
from hpcpipe.store.recent import find_run
from hpcpipe.store.rundir import RunDir, age, elapsed, read_pickle, write_pickle, write_whole
from hpcpipe.worker.claim import sign as sign_claim
from hpcpipe.worker.outcome import seal


def other_python(rundir: RunDir, body: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start another client, which has ``rundir`` and ``args``."""
    head = "import os, sys, time; from pathlib import Path\n"
    head += "from hpcpipe.store.rundir import RunDir\n"
    head += "rundir, args = RunDir(Path(sys.argv[1])), sys.argv[2:]\n"
    words = [str(rundir.folder), *map(str, arguments)]
    return subprocess.Popen([sys.executable, "-c", head + body, *words])


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    rundir = RunDir(tmp_path / "run")
    rundir.create()
    return rundir


# Files


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")

    def die(_: int) -> None:
        assert file.read_bytes() == b"old"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, b"new" * 100000)
    assert file.read_bytes() == b"old"
    monkeypatch.undo()
    write_whole(file, b"new", 0o400)
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o400
    assert [*tmp_path.iterdir()] == [file]


def test_folders_and_files_are_their_owners_alone(rundir: RunDir) -> None:
    before = os.umask(0)
    try:
        rundir.create()
        write_pickle(rundir.asked, 1)
    finally:
        os.umask(before)
    folders = [rundir.folder, rundir.home, *rundir.home.iterdir()]
    assert {path.stat().st_mode & 0o077 for path in folders} == {0}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/wf.*: Not a directory; choose a base_dir"):
        RunDir(tmp_path / "file" / "wf").create()


VALUE = {"a": (1.5, None, b"x" * 300), "b": ["words", {"deep": (1, 2)}], "é": True}


def test_a_pickle_cut_short_anywhere_is_as_good_as_none(tmp_path: Path) -> None:
    file = tmp_path / "file.pkl"
    write_pickle(file, VALUE)
    assert read_pickle(file) == VALUE
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        file.chmod(0o600)
        assert read_pickle(file, "default") == "default"


@pytest.mark.parametrize("content", [b"garbage\n", b"cno.such\nmodule\n.", b"\x80\x04K\x01\x86."])
def test_a_pickle_that_is_none_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    write_whole(tmp_path / "file.pkl", content)
    assert read_pickle(tmp_path / "file.pkl", "default") == "default"
    assert read_pickle(tmp_path / "missing.pkl", "default") == "default"


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_pickle_that_others_could_have_written_is_never_loaded(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file.pkl"
    write_whole(file, pickle.dumps(Trap(tmp_path / "sprung")))
    file.chmod(mode)
    with pytest.raises(ResultError, match=re.escape(f"{file}: not read, since another user")):
        read_pickle(file)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_of_another_user_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.pkl"
    write_whole(file, pickle.dumps(Trap(tmp_path / "sprung")))
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(ResultError, match="reading a pickle runs code"):
        read_pickle(file)
    assert not (tmp_path / "sprung").exists()


def test_one_look_tells_what_lies_in_a_nodes_results(rundir: RunDir) -> None:
    store = Store(rundir)
    folder = store.folder("node")
    folder.mkdir()
    names = ["a.pkl", "b.node-1.err", "b.node-2.err", "c.claim", "c.node.v2-3.err", ".part", "x"]
    for name in names:
        (folder / name).write_bytes(seal("a", True, b"value"))
    listing = store.has(["node"])["node"]
    assert (set(listing.succeeded), set(listing.claims)) == ({"a"}, {"c"})
    assert {key: set(batches) for key, batches in listing.errors.items()} == {
        "b": {"node-1", "node-2"},
        "c": {"node.v2-3"},
    }
    assert store.has(["none"])["none"].succeeded == frozenset()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_second_person_is_told_whose_run_it_is() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        rundir = RunDir(Path(folder, "run"))
        rundir.create()
        rundir.folder.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(UsageError, match="this run belongs to user id 0"):
                assert rundir.exists
            assert not RunDir(Path(folder, "other")).exists
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_run_in_a_folder_that_is_closed_to_a_second_person_is_not_said_to_be_absent() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        RunDir(Path(folder, "run")).create()
        os.seteuid(65534)
        try:
            with pytest.raises(UsageError, match="you may not open this folder of user id 0"):
                find_run(f"{folder}/run")
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_run_whose_owner_may_not_open_it_is_not_said_to_be_absent() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        os.seteuid(65534)
        try:
            rundir = RunDir(Path(folder, "run"))
            rundir.create()
            rundir.home.chmod(0)
            with pytest.raises(UsageError, match=rf"type: chmod u\+rwx {rundir.home}"):
                assert rundir.exists
        finally:
            os.seteuid(0)


# The lock

HOLD = """
with rundir.lock():
    Path(args[0]).touch()
    until = time.monotonic() + 30
    while not Path(args[1]).exists() and time.monotonic() < until:
        time.sleep(0.01)
"""


def test_a_lock_held_by_a_living_client_says_who_and_since_when(
    rundir: RunDir, tmp_path: Path
) -> None:
    assert rundir.holder() == ""
    with other_python(rundir, HOLD, tmp_path / "held", tmp_path / "go") as other:
        until((tmp_path / "held").exists)
        with pytest.raises(LockHeld) as refused, rundir.lock(wait=0.1):
            pass
        (tmp_path / "go").touch()
        assert other.wait(30) == 0
    assert re.fullmatch(
        rf"{re.escape(str(rundir.lock_file))}: held by process {other.pid} on "
        rf"{re.escape(os.uname().nodename)} \(user id {os.geteuid()}\) since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d; wait for it, or if it is surely gone: hpcpipe unlock",
        str(refused.value),
    )
    with rundir.lock(wait=0):
        assert f"process {os.getpid()} " in rundir.holder()
    assert rundir.holder() == ""


def test_a_lock_whose_holder_was_killed_is_taken_over(rundir: RunDir, tmp_path: Path) -> None:
    with other_python(rundir, HOLD, tmp_path / "held", tmp_path / "go") as other:
        until((tmp_path / "held").exists)
        other.kill()
    assert rundir.lock_file.exists()
    with rundir.lock(wait=5):
        assert f"process {os.getpid()} " in rundir.holder()


def test_a_lock_whose_holder_was_killed_before_it_could_sign_is_taken_over(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcpipe.store.rundir._SIGN_SECONDS", 0.1)
    rundir.lock_file.touch()
    with rundir.lock(wait=5):
        assert f"process {os.getpid()} " in rundir.holder()
    rundir.lock_file.touch()
    with pytest.raises(LockHeld), rundir.lock(wait=0.05):  # it may be about to sign
        pass


def test_a_lock_of_another_host_is_never_broken(rundir: RunDir) -> None:
    rundir.lock_file.write_text("elsewhere boot pidns 1 1 0 77 \n")
    with (
        pytest.raises(LockHeld, match="process 1 on elsewhere, job 77"),
        rundir.lock(wait=0.2),
    ):
        pass
    rundir.unlock(sure=True)
    assert rundir.holder() == ""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_lock_held_in_a_container_is_never_broken(rundir: RunDir) -> None:
    host, boot, _ = sign_claim().split(" ")[:3]
    text = f"{host} {boot} pid:[1] 4194304 1 0 - \n"
    rundir.lock_file.write_text(text)
    with pytest.raises(LockHeld), rundir.lock(wait=0.1):
        pass
    assert (rundir.is_held(), rundir.lock_file.read_text()) == (True, text)
    with pytest.raises(LockHeld, match="cannot be seen from here; if it is surely gone"):
        rundir.unlock(sure=False)
    assert rundir.lock_file.read_text() == text


@pytest.mark.parametrize("damaged", ["", "cut", "a b c d e f g h\n"])
def test_a_lock_that_names_nobody_can_be_broken(rundir: RunDir, damaged: str) -> None:
    rundir.lock_file.write_text(damaged)
    rundir.unlock(sure=True)
    assert not rundir.lock_file.exists()


@pytest.mark.parametrize("written", [0, None])
def test_a_lock_on_a_full_disk_is_refused_by_name_and_not_left(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    def write(*_: object) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match=r"No space left on device: .*/lock'"), rundir.lock():
        pass
    assert not rundir.lock_file.exists()


def test_a_lock_is_not_broken_while_its_holder_lives_here(rundir: RunDir) -> None:
    with rundir.lock():
        with pytest.raises(LockHeld, match=f"process {os.getpid()} .* still running on this host"):
            rundir.unlock(sure=True)
        assert rundir.is_held()
    assert not rundir.is_held()


@pytest.mark.parametrize(("ahead", "old"), [(-600, 600), (600, 600), (1, 1)])
def test_a_time_far_in_the_future_is_as_much_out_of_date_as_one_long_past(
    rundir: RunDir, ahead: float, old: float
) -> None:
    rundir.lock_file.touch()
    os.utime(rundir.lock_file, times=(time.time() + ahead,) * 2)
    assert abs(age(rundir.lock_file) - old) < 60
    assert elapsed(100 + ahead, 100) == old
    assert age(rundir.home / "none") == math.inf


COUNT = """
counter = Path(args[0])
for _ in range(20):
    with rundir.lock():
        count = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(count + 1))
"""


def test_two_clients_never_hold_the_lock_at_once(rundir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    clients = [other_python(rundir, COUNT, tmp_path / "counter") for _ in range(3)]
    assert [client.wait(30) for client in clients] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"


@pytest.mark.parametrize("name", ["/run/.hpcpipe/lock", None])
def test_a_command_that_the_machine_refuses_a_file_says_which_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str | None
) -> None:
    number = errno.ENOSPC

    def refuse(_: str | None) -> None:
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr("hpcpipe.cli.looking.find_run", refuse)
    with pytest.raises(SystemExit, match="1"):
        main(["status"])
    where = f"{name}: " if name else ""
    said = f"hpcpipe: {where}No space left on device (hpcpipe --debug … shows more)\n"
    said += "Free some space, then type the same command again: nothing is lost.\n"
    assert capsys.readouterr().err == said
    with pytest.raises(OSError, match="No space left"):
        main(["--debug", "status"])
