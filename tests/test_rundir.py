"""How files are written and read on a common filesystem, and who holds the lock."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import until

from hpcpipe.errors import LockHeld, ResultError, UsageError
from hpcpipe.rundir import RunDir, read_pickle, write_pickle, write_whole


def other_python(rundir: RunDir, body: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start another client, which has ``rundir`` and ``args``."""
    head = (
        "import sys; from pathlib import Path; from hpcpipe.rundir import RunDir; import os, time\n"
    )
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
    folders = [rundir.home, *rundir.home.iterdir()]
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
    folder = rundir.results / "node"
    folder.mkdir()
    names = ["a.pkl", "b.node-1.err", "b.node-2.err", "c.claim", "c.node.v2-3.err", ".part", "x"]
    for name in names:
        (folder / name).touch()
    listing = rundir.list_results("node")
    assert (set(listing.good), set(listing.claims)) == ({"a"}, {"c"})
    assert {key: set(batches) for key, batches in listing.errors.items()} == {
        "b": {"node-1", "node-2"},
        "c": {"node.v2-3"},
    }
    assert rundir.list_results("no such node").good == frozenset()


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
    monkeypatch.setattr("hpcpipe.rundir._SIGN_SECONDS", 0.1)
    rundir.lock_file.touch()
    with rundir.lock(wait=5):
        assert f"process {os.getpid()} " in rundir.holder()
    rundir.lock_file.touch()
    with pytest.raises(LockHeld), rundir.lock(wait=0.05):  # it may be about to sign
        pass


def test_a_lock_of_another_host_is_never_broken(rundir: RunDir) -> None:
    rundir.lock_file.write_text("1\nelsewhere\n")
    with pytest.raises(LockHeld, match="process 1 on elsewhere"), rundir.lock(wait=0.2):
        pass
    assert rundir.lock_file.read_text() == "1\nelsewhere\n"


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
