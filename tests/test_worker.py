"""One element on its node, by its real script: what it runs, what it records, when it refuses."""

from __future__ import annotations

import atexit
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Lab, finished

from hpcpipe import each, task
from hpcpipe.frontends.load import load_workflow
from hpcpipe.graph.axes import Edge
from hpcpipe.graph.node import Node
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.run import Run
from hpcpipe.store.record import read_record
from hpcpipe.worker.outcome import NO_ENVIRONMENT, UNTRUSTED, UPSTREAM_FAILED, Refused
from hpcpipe.worker.task import ENTRY, MAGIC, TaskFile

HOST = os.uname().nodename
TERMINATED = {"ok": False, "signal": signal.SIGTERM, "exit": None, "terminated": True}


# What tasks do


def double(x: Any) -> Any:
    return 2 * x


def pair(x: int) -> dict[str, list[int]]:
    return {"both": [x, -x]}


def total(xs: list[int], more: dict[str, list[int]]) -> int:
    return sum(xs) + sum(more["deep"])


def note(log: str) -> None:
    with open(log, "a") as file:
        file.write("ran\n")


def wait_for(go: str) -> str:
    print("first line")
    while not os.path.exists(go):
        time.sleep(0.01)
    return "went"


def heed(go: str) -> str:
    signal.signal(signal.SIGTERM, lambda *_: Path(go).touch())
    return wait_for(go)


def leave(go: str) -> str:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return wait_for(go)


def vanish_when_told(go: str) -> str:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    return wait_for(go)


@task(folder=True)
def make_files() -> dict[str, Any]:
    Path("out.txt").write_text("made")
    return {"paths": [Path("out.txt"), Path("/etc/hosts")], "text": "out.txt"}


def where() -> tuple[str, Path]:
    Path("here.txt").touch()
    return os.getcwd(), Path("here.txt")


@dataclass
class Made:
    image: Path


def nested() -> list[Made]:
    Path("image.nii").touch()
    return [Made(Path("image.nii"))]


def unsaid() -> Any:
    return {"deep": [Made(Path("image.nii"))]}


def linger() -> None:
    atexit.register(print, "from an exit handler")
    threading.Timer(0.05, print, ["from a thread"]).start()


def leave_with(code: Any) -> None:
    sys.exit(code)


def fail() -> None:
    _deeper()


def _deeper() -> None:
    raise ValueError("no such subject:\n'SAD07'")


def fail_with_a_note() -> None:
    error = ValueError("bad")
    error.add_note("a note")
    raise error


def fail_holding_a_lock() -> None:
    raise ValueError(threading.Lock())


def vanish() -> None:
    print("before", end="", flush=True)
    os._exit(4)


def kill_itself(by: int) -> None:
    os.kill(os.getpid(), by)


def give_a_lock() -> Any:
    return [threading.Lock()]


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for what a process writes first."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0]
    return process.stdout.readline()


# Outcomes of Python tasks


def test_values_flow_from_task_to_task(lab: Lab) -> None:
    one = lab.workflow.add(double, x=each([1, 2], axis="n"))
    two = lab.workflow.add(pair, x=one)
    base = lab.workflow.add(double, x=50, name="base")
    lab.workflow.add(total, xs=two["both"][0].gather("n"), more={"deep": [base]})
    lab.submit()
    for name in ("double/1", "double/2", "pair/1", "pair/2", "base", "total"):
        assert lab.run(name).status == 0
    assert lab.value("pair/2") == {"both": [4, -4]}
    assert lab.value("total") == 2 + 4 + 100


def test_an_outcome_tells_where_when_and_with_how_much_it_ran(lab: Lab) -> None:
    before = time.time()
    lab.workflow.add(double, x=each(["a", "b"], axis="n"))
    lab.submit()
    assert lab.run("double/b").status == 0
    outcome = lab.outcome("double/b")
    assert {"ok": True, "job": "1_1", "attempt": 0, "host": HOST}.items() <= outcome.items()
    assert before <= outcome["start"] <= time.time()
    assert 0 < outcome["wall"] < 30
    assert 0 <= outcome["cpu"] < 30
    assert outcome["max_memory"] > 1000


FAILURES: list[tuple[Callable[..., Any], dict[str, Any], str, dict[str, Any]]] = [
    (fail, {}, "ValueError: no such subject:\n'SAD07'", {"exit": None}),
    (fail_with_a_note, {}, "ValueError: bad", {}),
    (fail_holding_a_lock, {}, "ValueError: <unlocked _thread.lock", {}),
    (leave_with, {"code": 3}, "exit 3", {"exit": 3}),
    (leave_with, {"code": "too few"}, "too few", {"exit": 1}),
    (give_a_lock, {}, "TypeError: it returned a list that cannot be pickled: ", {"exit": None}),
    (vanish, {}, "the process ended with exit 4 before the task returned", {"exit": 4}),
    (kill_itself, {"by": 9}, "killed by signal 9", {"signal": 9, "exit": None}),
    (kill_itself, {"by": 11}, "killed by signal 11", {"signal": 11, "terminated": False}),
]


@pytest.mark.parametrize(("function", "inputs", "error", "facts"), FAILURES)
def test_each_way_to_fail_is_recorded(
    lab: Lab,
    function: Callable[..., Any],
    inputs: dict[str, Any],
    error: str,
    facts: dict[str, Any],
) -> None:
    lab.workflow.add(function, **inputs, name="work")
    lab.submit()
    assert lab.run("work").status == 1
    outcome = lab.outcome("work")
    assert outcome["error"].startswith(error)
    assert ({"ok": False, "job": "1"} | facts).items() <= outcome.items()


def test_a_traceback_begins_in_the_users_code_and_is_in_the_log(lab: Lab) -> None:
    lab.workflow.add(fail)
    lab.submit()
    log = lab.run("fail").err
    assert log == lab.outcome("fail")["trace"]
    lines = log.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert re.fullmatch(rf'  File "{re.escape(__file__)}", line \d+, in fail', lines[1])
    assert f"{os.sep}hpcpipe{os.sep}worker.py" not in log


@pytest.mark.parametrize("code", [0, None])
def test_to_leave_with_zero_is_to_return_nothing(lab: Lab, code: Any) -> None:
    lab.workflow.add(leave_with, code=code)
    lab.submit()
    assert lab.run("leave_with").status == 0
    assert lab.value("leave_with") is None


def test_what_exit_handlers_and_threads_still_write_is_in_the_log(lab: Lab) -> None:
    lab.workflow.add(linger)
    lab.submit()
    assert lab.run("linger").out == b"from a thread\nfrom an exit handler\n"


def test_what_a_task_prints_can_be_followed_line_by_line(lab: Lab, tmp_path: Path) -> None:
    lab.workflow.add(wait_for, go=str(tmp_path / "go"))
    lab.submit()
    with lab.start("wait_for") as process:
        assert first_line(process) == b"first line\n"
        (tmp_path / "go").touch()
        assert finished(process).status == 0


def test_a_task_runs_in_its_folder_and_its_relative_paths_are_anchored_there(lab: Lab) -> None:
    lab.workflow.add(make_files)
    lab.workflow.add(where)
    lab.submit()
    assert lab.run("make_files").status == 0
    assert lab.run("where").status == 0
    folder = lab.rundir.folder / "make_files"
    made = lab.value("make_files")
    assert made == {"paths": [folder / "out.txt", Path("/etc/hosts")], "text": "out.txt"}
    assert made["paths"][0].read_text() == "made"
    folder = lab.rundir.folder / "where"
    assert lab.value("where") == (str(folder), folder / "here.txt")


def test_a_relative_path_from_a_task_without_a_folder_is_an_error(lab: Lab) -> None:
    lab.workflow.add(nested)
    lab.workflow.add(unsaid)
    lab.submit()
    assert lab.run("nested").status == 0
    assert lab.run("unsaid").status == 1
    assert lab.value("nested")[0].image == lab.rundir.folder / "nested" / "image.nii"
    assert lab.outcome("unsaid")["error"].startswith("ValueError: returned 'image.nii', relative")


WORKFLOW = """
from dataclasses import dataclass
from hpcpipe import Workflow

with open("loads", "a") as log:
    log.write("loaded\\n")

@dataclass
class Point:
    x: int

class Odd(Exception):
    pass

def make():
    return [Point(1)]

def move(points):
    return Point(points[0].x + 1)

def fail():
    raise Odd("it is")

wf = Workflow("own", "runs")
wf.add(move, points=wf.add(make))
wf.add(fail)
"""


def test_classes_of_the_workflows_file_travel_and_the_file_is_not_run_on_the_node(
    lab: Lab,
) -> None:
    Path("own.py").write_text(WORKFLOW)
    lab.workflow = load_workflow("own.py")
    lab.rundir = type(lab.rundir)(lab.workflow.folder)
    lab.submit()
    Path("own.py").write_text(WORKFLOW.replace("loaded", "loaded again") + "raise SystemError")
    assert [lab.run(name).status for name in ("make", "move", "fail")] == [0, 0, 1]
    assert lab.value("move").x == 2
    assert lab.outcome("fail")["error"] == "own.Odd: it is"
    assert Path("loads").read_text() == "loaded\n"


# What Python tasks and commands have in common


@pytest.fixture(params=["python", "command"])
def work(request: pytest.FixtureRequest, lab: Lab) -> Callable[..., Node]:
    """Make a node that notes in the file ``ran`` that it ran; ``go`` is a file it waits for."""

    def add(name: str = "work", go: str = "", after: tuple[Node, ...] = ()) -> Node:
        log = str(Path("ran").absolute())
        if request.param == "python":
            if go:
                return lab.workflow.add(wait_for, go=go, name=name, after=after)
            return lab.workflow.add(note, log=log, name=name, after=after)
        script = 'echo ran >>"$1"'
        if go:
            script = 'echo first line; until [ -e "$1" ]; do sleep 0.01; done'
        words = ["sh", "-c", script, "sh", "{file}"]
        return lab.workflow.command(words, name=name, after=after, file=go or log)

    return add


def runs() -> int:
    """Count how often tasks have run."""
    return Path("ran").read_text().count("ran") if Path("ran").exists() else 0


def test_an_element_leaves_one_file_that_only_its_owner_may_read(
    lab: Lab, work: Callable[..., Node]
) -> None:
    work()
    lab.workflow.add(fail)
    lab.workflow.command("false")
    lab.submit()
    assert [lab.run(name, umask=0).status for name in ("work", "fail", "false")] == [0, 1, 1]
    files = [file for file in (lab.rundir.home / "results").rglob("*") if file.is_file()]
    wanted = [lab.find("work").good, lab.find("fail").bad, lab.find("false").bad]
    assert sorted(files) == sorted(wanted)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_task_that_is_good_is_not_run_again(lab: Lab, work: Callable[..., Node]) -> None:
    work()
    lab.submit()
    assert [lab.run("work").status, lab.run("work").status] == [0, 0]
    assert runs() == 1


def test_a_task_whose_runs_folder_was_renamed_meanwhile_leaves_its_outcome_there(
    lab: Lab, tmp_path: Path
) -> None:
    lab.workflow.add(heed, go=str(tmp_path / "go"))
    lab.submit()
    good, moved = lab.find("heed").good, lab.rundir.folder.with_name("moved")
    with lab.start("heed") as process:
        first_line(process)
        lab.rundir.folder.rename(moved)
        process.terminate()
        assert finished(process).status == 0
    assert (moved / good.relative_to(lab.rundir.folder)).exists()


def test_a_task_told_to_end_is_recorded_as_terminated(
    lab: Lab, work: Callable[..., Node], tmp_path: Path
) -> None:
    work(go=str(tmp_path / "go"))
    lab.submit()
    with lab.start("work") as process:
        first_line(process)
        process.terminate()
        assert finished(process).status == 1
    outcome = lab.outcome("work")
    assert TERMINATED.items() <= outcome.items()
    assert outcome["error"].startswith("terminated")


def test_a_function_that_returns_though_told_to_end_is_good(lab: Lab, tmp_path: Path) -> None:
    lab.workflow.add(heed, go=str(tmp_path / "go"))
    lab.submit()
    with lab.start("heed") as process:
        first_line(process)
        process.terminate()
        assert finished(process).status == 0
    assert lab.outcome("heed")["ok"]
    assert lab.value("heed") == "went"


def test_what_ends_with_0_when_told_to_end_may_not_have_finished(lab: Lab, tmp_path: Path) -> None:
    tidies = "trap 'exit 0' TERM; echo; while :; do sleep 0.01; done"
    lab.workflow.command(["sh", "-c", tidies], name="command")
    lab.workflow.add(leave, go=str(tmp_path / "go"))
    lab.workflow.add(vanish_when_told, go=str(tmp_path / "go"))
    lab.submit()
    words = {"command": "told to end, it ended with 0, finished or not"}
    for name in ("command", "leave", "vanish_when_told"):
        with lab.start(name) as process:
            first_line(process)
            process.terminate()
            assert finished(process).status == 1
        assert not lab.outcome(name)["ok"]
        said = "terminated: it ended with 0, and its result is not there"
        assert lab.outcome(name)["error"] == words.get(name, said)
        assert lab.outcome(name)["terminated"]  # why, the accounting may know
        assert lab.outcome(name)["exit"] == 0


def test_a_function_that_ends_its_process_with_0_has_failed_and_so_does_its_job(lab: Lab) -> None:
    lab.workflow.add(os._exit, status=0, name="gone")
    lab.submit()
    assert lab.run("gone").status == 1
    assert lab.outcome("gone")["error"] == (
        "the process ended with exit 0 before the task returned"
    )


def test_without_its_upstreams_outcome_an_element_does_not_run(
    lab: Lab, work: Callable[..., Node]
) -> None:
    work(after=(work("before"),))
    lab.submit()
    done = lab.run("work")
    assert done.status == UPSTREAM_FAILED
    assert re.fullmatch(
        r"hpcpipe: upstream failed: no result at results/before/\w+\.pkl\n", done.err
    )
    assert runs() == 0
    assert not [*(lab.rundir.home / "results").rglob("*.*")]


def test_a_late_outcome_is_waited_for_but_not_where_the_upstream_has_failed(
    lab: Lab, work: Callable[..., Node]
) -> None:
    lab.site = lab.settling(60)
    work(after=(work("before"),))
    lab.submit()
    before = lab.find("before")
    before.bad.with_name(before.bad.name.replace("before", "earlier")).touch()  # another attempt's
    with lab.start("work") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert lab.run("before").status == 0
        assert finished(process).status == 0
    assert runs() == 2
    lab.find("work").good.unlink()
    before.good.rename(before.bad)
    began = time.monotonic()
    assert lab.run("work").status == UPSTREAM_FAILED
    assert time.monotonic() - began < 20


# What a worker refuses


def edited(part: str, content: bytes) -> bytes:
    """Change one part of a task file."""
    header = len(MAGIC) + 8
    index = header + int.from_bytes(content[len(MAGIC) : header], "little")
    match part:
        case "magic":
            at, new = 0, b"H"
        case "length":  # of the header: more than any memory holds
            at, new = header - 2, b"\x08"
        case "header":
            at, new = header + 20, b"!"
        case "index":  # two entries exchanged: each element would run the other's task
            one, two = content[index:][:ENTRY], content[index + ENTRY :][:ENTRY]
            at, new = index, two + one
        case _:
            at, new = len(content) - 3, b"!!!"
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize("part", ["magic", "length", "header", "index", "payload"])
def test_what_was_edited_after_it_was_submitted_is_not_run(lab: Lab, part: str) -> None:
    lab.workflow.add(note, log=each([str(Path("ran").absolute())] * 2, axis="n"))
    lab.submit()
    file = lab.rundir.batches / f"{lab.find('note/ran-2').batch}.tasks"
    file.chmod(0o600)
    file.write_bytes(edited(part, file.read_bytes()))
    done = lab.run("note/ran-2")
    said = f"hpcpipe: {file.parent} was changed since it was submitted: nothing was run\n"
    assert (done.status, done.err) == (UNTRUSTED, said)
    assert runs() == 0


def test_a_task_file_of_another_version_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.tasks").write_bytes(b"hpcpipe tasks 1\n")
    (tmp_path / "x.tasks").chmod(0o400)
    with pytest.raises(Refused, match="not a task file of this version"):
        TaskFile(str(tmp_path / "x.tasks"), 0)


def test_another_python_than_the_submitters_is_told_clearly(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.add(double, x=1)
    other = SimpleNamespace(cache_tag="cpython-27")
    submitter = SimpleNamespace(implementation=other, executable=sys.executable, path=sys.path)
    monkeypatch.setattr("hpcpipe.keys.plan.sys", submitter)
    lab.submit()
    done = lab.run("double")
    assert done.status == NO_ENVIRONMENT
    assert done.err == (
        f"hpcpipe: submitted with cpython-27 ({sys.executable}), but {HOST} starts "
        f"{sys.implementation.cache_tag} ({sys.executable})\n"
    )


def test_an_interpreter_that_the_node_lacks_is_told_clearly(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.workflow.add(double, x=1)
    monkeypatch.setattr(sys, "executable", "/no such/python")
    lab.submit()
    done = lab.run("double")
    assert done.status == NO_ENVIRONMENT
    words = "no Python at /no such/python on this node; submit with one that every node has"
    assert done.err == f"hpcpipe: {words}\n"
    element = lab.find("double")
    lab.rundir.log(element.batch, element.index).write_text(f"a module was loaded\n{done.err}")
    lab.scheduler.says = {element.job: JobEnd("FAILED", Reason.EXIT, NO_ENVIRONMENT)}
    [one] = Run(lab.rundir.folder).report(fresh=True).tasks
    assert one.reason is Reason.START
    assert one.words.startswith(f"{words} (log: ")


def test_an_upstream_outcome_that_others_could_have_written_is_not_read(lab: Lab) -> None:
    lab.workflow.add(double, x=lab.workflow.add(double, x=1, name="one"))
    lab.submit()
    assert lab.run("one").status == 0
    lab.find("one").good.chmod(0o660)
    assert lab.run("double").status == 1
    assert "could have written it" in lab.outcome("double")["error"]


def ten_over(x: int) -> float:
    return 10 / x


def test_a_task_does_not_run_where_the_one_before_it_in_its_pack_failed(lab: Lab) -> None:
    values = each([0, 1])
    lab.workflow.add(ten_over, name="first", x=values)
    second = lab.workflow.add(ten_over, name="second", x=each([1, 1], labels=["0", "1"]))
    links = (Edge("first", range(2)),)
    lab.workflow.nodes["second"] = replace(second, links=links, fuse=True)
    lab.submit()
    failed, good = lab.run("first/0"), lab.run("first/1")
    assert (failed.status, good.status) == (0, 0)  # what went wrong is in the pack
    assert "upstream failed: no result at " in failed.err
    assert sorted(good for _, _, good, _ in lab.store.list_packs()) == [False, False, True, True]
    assert lab.outcome("second/0")["barred"] == UPSTREAM_FAILED
    first = next(iter(lab.rundir.home.glob("packs/*.0.pack"))).name.partition(".")[0]
    key = read_record(lab.rundir, 1).nodes["first"].key(0)
    assert isinstance(lab.store.get_error("first", key, first), ZeroDivisionError)


def test_a_module_that_was_edited_within_a_second_is_imported_anew_on_the_node(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    folder = tmp_path / "own_folder"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    lab.workflow.add(imports_late, name="late")
    lab.submit()
    for width in (4, 5):  # as long as before
        part = folder / "late_part.py"
        part.write_text(f"width = {width}\n")
        os.utime(part, (1e9, 1e9))
        assert lab.run("late").status == 0
        assert lab.value("late") == width
        lab.find("late").good.unlink()


def imports_late() -> int:
    import late_part  # type: ignore[import-not-found]

    width: int = late_part.width
    return width
