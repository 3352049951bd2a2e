"""Whatever becomes of a file of a run, no command fails for a bug of ours, hangs, or shows a value
that no task returned."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import pytest
from fakes import CANCELLED, FakeScheduler, Lab

from hpcpipe.cli import main

FLOW = """
from hpcpipe import Workflow, each, task

def good(i): return {"twice": 2 * i}
def bad(i): raise ValueError(f"no {i}")
@task(pack=2)
def packed(i): return i

wf = Workflow("lab", base_dir="../runs")
wf.add(good, i=each([1, 2]))
wf.add(bad, i=each([1, 2]))
wf.add(packed, i=each([1, 2, 3]))
wf.command("echo {i}", name="echo", i="x")
"""
COMMANDS = [
    [],
    ["status"],
    ["status", "--json"],
    ["explain", "bad/1"],
    ["explain", "good"],
    ["logs", "bad/1"],
    ["results", "good", "--json"],
    ["results", "packed", "--json"],
    ["runs"],
    ["plan", "flow.py"],
    ["submit", "flow.py"],
    ["retry"],
    ["retry", "--reload"],
    ["cancel", "--yes"],
    ["unlock"],
    ["explain", "good/1", "--key"],
    ["explain", "echo"],
    ["logs", "packed/3", "--path"],
    ["logs", "bad/2", "--follow"],
    ["results", "good/2", "--json"],
    ["runs", "--json"],
    ["plan", "flow.py", "--json"],
    ["map", "--dry-run", "--", "echo", "{}", ":::", "1"],
    ["clean"],
    ["clean", "--yes", "--older", "0s"],
    ["watch"],
    ["run", "flow.py"],
    ["site", "show"],
]
TRUE: dict[str, list[object]] = {"good": [{"twice": 2}, {"twice": 4}], "packed": [1, 2, 3]}
STATUSES = {0, 130, *range(1, 11)}  # see errors.py
ALL = bool(os.environ.get("HPCPIPE_TEST_ALL"))
POINTS = 20  # places at which a file is cut, and at which a bit of it is flipped
ASKED = 5 if ALL else 1  # commands that are tried on each damage: over all damages to a file, each
WAITS = {"watch", "run", "logs"}  # for tasks that no scheduler runs here; a while is enough

waits: list[str] = []  # the command that runs, if it is one of these

Damage = Callable[[Path], object]


def in_its_place(make: Damage) -> Damage:
    def put(path: Path) -> None:
        path.unlink()
        make(path)

    return put


def damages(file: Path) -> Iterator[tuple[str, Damage]]:
    """Yield what may become of a file, each with its name."""
    data = file.read_bytes()
    chance = random.Random(file.name)

    def written(content: bytes) -> Damage:
        def write(path: Path) -> None:
            path.chmod(0o600)  # a plan may not even be written to by its owner
            path.write_bytes(content)

        return write

    yield "missing", Path.unlink
    yield "a folder", in_its_place(Path.mkdir)
    yield "a loop", in_its_place(lambda path: path.symlink_to(path))
    yield "empty", written(b"")
    if os.getuid():  # root reads everything
        yield "unreadable", lambda path: path.chmod(0)
    for at in chance.sample(range(len(data)), min(POINTS, len(data))):
        yield f"cut at {at}", written(data[:at])
        bit = 1 << chance.randrange(8)
        yield f"bit {bit} of {at}", written(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])


def trouble(words: list[str], capsysbinary: pytest.CaptureFixture[bytes]) -> str:
    """Run a command; return what it did that no command may do, or nothing."""
    before = [*sys.path], {*sys.modules}, Path.cwd()
    waits[:] = [one for one in words[:1] if one in WAITS]
    signal.setitimer(signal.ITIMER_REAL, 0.3 if waits else 20)
    try:
        main(words)
    except SystemExit as ended:
        said = capsysbinary.readouterr()
        if ended.code not in STATUSES:
            return f"exit {ended.code}"
        if ended.code == 130 and waits:
            return ""
        if ended.code and not said.err.startswith((b"hpcpipe: ", b"Usage: ")):
            return f"exit {ended.code} without a message: {said}"
        if words[0:1] == ["results"] and not ended.code:
            found = json.loads(said.out).values()  # where the plan is lost, the labels are keys
            true = TRUE[words[1].partition("/")[0]]
            return "" if all(one in true for one in found) else f"wrong: {found}"
        return ""
    except BaseException as error:
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = trace and f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        return f"{type(error).__name__}: {error} at {where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir(before[2])
        sys.path[:] = before[0]
        for name in {*sys.modules} - before[1]:
            if name == "flow" or name.startswith("workflow_"):
                del sys.modules[name]
    return "returned"


def late(*_: object) -> None:
    """Interrupt a command that waits, as a person would; no other may take so long."""
    if waits:
        raise KeyboardInterrupt
    raise TimeoutError("hangs")


@pytest.fixture
def ended(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a run has left whose tasks have ended, two of them badly."""
    monkeypatch.setenv("HPCPIPE_SITE", "local")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here, and it takes long
    Path("flow.py").write_text(FLOW)
    with suppress(SystemExit):
        main(["submit", "flow.py"])
    for task in ("good/1", "good/2", "bad/1", "bad/2", "packed/1", "packed/3", "echo"):
        done = lab.run(task)
        out = lab.rundir.log(lab.find(task).batch, lab.find(task).index)
        out.write_bytes(done.out + done.err.encode())
    lab.scheduler.says = dict.fromkeys(lab.scheduler.says, CANCELLED)
    with suppress(SystemExit):
        main(["status"])
    return tmp_path


def test_no_damage_to_a_file_is_a_bug_of_ours(
    ended: Path, scheduler: FakeScheduler, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    signal.signal(signal.SIGALRM, late)
    spare = Spare(ended)
    jobs, says = dict(scheduler.jobs), dict(scheduler.says)
    found = {}
    commands = cycle(COMMANDS)
    for name in spare.files():
        for damaged, damage in damages(spare.spare / name):
            for words in islice(commands, ASKED):
                spare.restore()
                scheduler.jobs, scheduler.says = dict(jobs), dict(says)
                damage(ended / name)
                if wrong := trouble(words, capsysbinary):
                    found[f"{name} {damaged}: hpcpipe {' '.join(words)}"] = wrong
    assert not found, "\n".join(f"{one}: {wrong}" for one, wrong in found.items())


class Spare:
    """A copy of what is in a folder, all but the current folder, and what puts it back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spare = folder, folder.with_name("spare")
        shutil.copytree(folder, self.spare, symlinks=True)
        self.known = self.look()

    def files(self) -> Iterator[Path]:
        """Yield the files that may be damaged, by their place in the folder."""
        for path in sorted(path for path in self.spare.rglob("*") if path.is_file()):
            if (name := path.relative_to(self.spare)) != Path("here/flow.py"):
                yield name

    def look(self) -> dict[Path, tuple[int, ...]]:
        """Note of every path what no change to it leaves as it was; of a folder, that it is one."""
        found = {}
        for top, folders, files in os.walk(self.folder):
            for path in (Path(top, name) for name in folders + files):
                is_folder, stat = path.is_dir() and not path.is_symlink(), path.lstat()
                facts = () if is_folder else (stat.st_ino, stat.st_ctime_ns)
                found[path] = (stat.st_mode, *facts)
        return found

    def restore(self) -> None:
        """Put everything back as it was."""
        now = self.look()
        for path in sorted(path for path in now if now[path] != self.known.get(path)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # it may have been in a folder that is gone by now
        for path in self.known:  # a folder before what is in it
            if not os.path.lexists(path):
                saved = self.spare / path.relative_to(self.folder)
                if saved.is_dir():
                    path.mkdir()
                    shutil.copystat(saved, path)
                else:
                    shutil.copy2(saved, path, follow_symlinks=False)
        self.known = self.look()
