"""Elements of several tasks, by their real scripts: what runs at a time, and what is left of it."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import psutil
import pytest
from fakes import Lab, finished, until

from hpcpipe import each, task
from hpcpipe.graph.node import Node
from hpcpipe.jobs import JobEnd, State
from hpcpipe.run import Run, retry
from hpcpipe.site import Queue
from hpcpipe.status.report import make_report
from hpcpipe.submit.cancel import cancel
from hpcpipe.views.explain import find_log
from hpcpipe.worker.outcome import UPSTREAM_FAILED, append_outcome, scan_pack

SHELLS = [["/bin/sh"], *([["bash", "--posix"]] if shutil.which("bash") else [])]
Add = Callable[..., Node]

# Says that it has begun, then waits, but not for ever, until it may go on.
WAITING = """
    echo "hello $1"; touch "began-$1"; tries=0
    until [ -e go ] || [ $tries -gt 3000 ]; do tries=$((tries + 1)); sleep 0.01; done
"""
# Notes its beginning and its end; the first one waits until another has begun.
NOTING = """
    echo "+{name} $1" >>ran; tries=0
    until [ "$(grep -c + ran)" -gt 1 ] || [ $tries -gt 1500 ]; do
      tries=$((tries + 1)); sleep 0.01
    done
    echo "-{name} $1" >>ran
"""


def shell(script: str, n: int) -> None:
    subprocess.run(["sh", "-c", script, "sh", str(n)], check=True)


@pytest.fixture(params=["python", "command"])
def add(request: pytest.FixtureRequest, lab: Lab) -> Add:
    """Make four tasks of a script; a site where they have to share an element of two lanes."""
    limits = replace(lab.site.limits, max_jobs=1)
    queue = Queue(name="q", exclusive=True, max_cpus=4, max_gpus=4)
    lab.site = replace(lab.site, limits=limits, queues=(queue,))

    def add(script: str, name: str = "work", after: tuple[Node, ...] = (), gpus: int = 0) -> Node:
        n, asked = each(range(4), axis="n"), {"cpus": 2, "gpus": gpus}
        if request.param == "python":
            call = task(**asked)(shell)  # type: ignore[call-overload]
            node: Node = lab.workflow.add(call, script=script, n=n, name=name, after=after)
            return node
        words = ["sh", "-c", script, "sh", "{n}"]
        return lab.workflow.command(words, n=n, name=name, after=after, resources=asked)

    return add


@pytest.mark.parametrize("sh", SHELLS, ids=lambda words: words[0])
def test_two_lanes_keep_two_strands_running_each_in_its_order(
    lab: Lab, add: Add, sh: list[str]
) -> None:
    add(NOTING.format(name="b"), "b", after=(add(NOTING.format(name="a"), "a"),))
    lab.submit()
    assert lab.run("a/0", shell=sh).status == 0
    ran = Path("ran").read_text().splitlines()
    assert len(ran) == 16
    assert max(accumulate(1 if line[0] == "+" else -1 for line in ran)) == 2
    for n in range(4):
        assert ran.index(f"-a {n}") < ran.index(f"+b {n}")


def test_told_to_end_those_that_run_are_recorded_as_terminated_and_no_more_begin(
    lab: Lab, add: Add
) -> None:
    add(WAITING)
    lab.submit()
    with lab.start("work/0") as process:
        until(lambda: len([*Path().glob("began-*")]) == 2)
        process.terminate()
        assert finished(process).status == 1
    Path("go").touch()
    began = {path.name[-1] for path in Path().glob("began-*")}
    outcomes = {str(n): lab.outcome(f"work/{n}") for n in range(4)}
    assert {n for n, outcome in outcomes.items() if outcome} == began
    assert all(outcomes[n]["terminated"] and not outcomes[n]["ok"] for n in began)


@pytest.mark.parametrize("sh", SHELLS, ids=lambda words: words[0])
def test_an_element_that_ran_to_its_end_ends_well_whatever_its_tasks_did(
    lab: Lab, add: Add, sh: list[str]
) -> None:
    after = add('[ "$1" != 2 ]', "a")
    add("true", "b", after=(after,))
    lab.submit()
    assert lab.run("a/0", shell=sh).status == 0
    failed = {f"{name}/{n}" for name in "ab" for n in range(4) if lab.outcome(f"{name}/{n}")}
    assert failed == {"a/2", "b/2"}
    assert lab.outcome("b/2")["barred"] == UPSTREAM_FAILED
    assert lab.outcome("b/2")["error"].startswith("upstream failed: no result at ")
    assert sum(good for _, _, good, _ in lab.store.list_packs()) == 6
    assert not [file for file in lab.rundir.home.rglob("*") if ".claim" in file.name]


def is_script(process: psutil.Process) -> bool:
    try:
        return "began-" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False


def test_what_waited_in_an_element_is_cancelled_with_what_ran_there(lab: Lab, add: Add) -> None:
    add("true", "b", after=(add(WAITING, "a"),))
    lab.submit()
    with lab.start("a/0") as process:
        until(lambda: len([*Path().glob("began-*")]) == 2)
        everything = psutil.Process(process.pid).children(recursive=True)
        scripts = [one for one in everything if is_script(one)]
        assert cancel(lab.rundir).tasks == 8
        # All are told to end, but the worker has gone on before it hears of it.
        for one in scripts:
            with suppress(psutil.NoSuchProcess):  # it has heard of it already
                if (parent := one.parent()) and "python" in parent.name():
                    parent.terminate()
                one.terminate()
        until(lambda: lab.outcome("b/0") or lab.outcome("b/1"))
        os.killpg(process.pid, signal.SIGKILL)
    states = {task.name: task.state for task in make_report(lab.rundir, fresh=True).tasks}
    assert states == {f"{node}/{n}": State.CANCELLED for node in "ab" for n in range(4)}


def test_of_a_killed_element_each_log_is_found_and_its_next_start_does_the_rest(
    lab: Lab, add: Add
) -> None:
    add(WAITING)
    run: Run = lab.submit()
    with lab.start("work/0") as process:
        until(lambda: len([*Path().glob("began-*")]) == 2)
        os.killpg(process.pid, signal.SIGKILL)
    logs = [find_log(run.rundir, f"work/{path.name[-1]}") for path in Path().glob("began-*")]
    assert [log.path for log in logs] == [log.own for log in logs]
    assert sorted(b"".join(log.lines()) for log in logs) == [b"hello 0\n", b"hello 1\n"]
    Path("go").touch()
    done = lab.run("work/0")
    assert done.status == 0
    assert sum(good for _, _, good, _ in lab.store.list_packs()) == 4
    assert done.out.count(b"hpcpipe: task work ") == 4
    assert not [*lab.rundir.logs.iterdir()]
    logs[0].shared.write_bytes(done.out)  # as the scheduler would
    assert [*find_log(run.rundir, "work/3").lines()] == [b"hello 3\n"]
    assert [*find_log(run.rundir, "work/0").lines(2)] == [
        b"llo 0\n",
        b"hello 0\n",
    ]  # of both starts


def change_cat(folder: Path, patch: pytest.MonkeyPatch, line: str) -> None:
    """Run a line before ``cat`` copies a log."""
    cat = folder / "cat"
    cat.write_text(f'#!/bin/sh\ncase $1 in *.out) {line} ;; esac\nexec /bin/cat "$@"\n')
    cat.chmod(0o700)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_log_that_could_not_be_copied_is_found(
    lab: Lab, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_cat(tmp_path, monkeypatch, "exit 1")
    add('echo "hello $1"')
    run: Run = lab.submit()
    done = lab.run("work/0")
    logs = [find_log(run.rundir, f"work/{n}") for n in range(4)]
    logs[0].shared.write_bytes(done.out)
    assert [b"".join(log.lines()) for log in logs] == [f"hello {n}\n".encode() for n in range(4)]


def test_logs_are_not_mixed_by_signals_that_come_while_they_are_copied(
    lab: Lab, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_cat(tmp_path, monkeypatch, 'trap "" TERM; sleep 0.5')
    add(WAITING)
    run: Run = lab.submit()
    with lab.start("work/0") as process:
        until(lambda: len([*Path().glob("began-*")]) == 2)
        while process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.05)
        done = finished(process)
    logs = [find_log(run.rundir, f"work/{path.name[-1]}") for path in Path().glob("began-*")]
    logs[0].shared.write_bytes(done.out)
    assert sorted(next(log.lines()) for log in logs) == [b"hello 0\n", b"hello 1\n"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [({}, ["0,1", "2,3"]), ({"CUDA_VISIBLE_DEVICES": "a,b,c,d"}, ["a,b", "c,d"])],
)
def test_each_lane_has_gpus_of_its_own(
    lab: Lab, add: Add, given: dict[str, str], parts: list[str]
) -> None:
    add('echo "$CUDA_VISIBLE_DEVICES" >>seen\n' + NOTING.format(name="a"), gpus=2)
    lab.submit()
    assert lab.run("work/0", env=given).status == 0
    assert sorted({*Path("seen").read_text().split()}) == parts


def test_what_comes_after_an_outcome_that_was_cut_short_is_found(tmp_path: Path) -> None:
    pack = tmp_path / "batch.0.pack"
    keys = [f"{n:032}" for n in range(3)]
    append_outcome(str(pack), keys[0], True, {}, pickle.dumps(0))
    size = pack.stat().st_size
    append_outcome(str(pack), keys[1], True, {}, pickle.dumps("x" * 500))
    os.truncate(pack, size + 100)
    append_outcome(str(pack), keys[2], False, {}, pickle.dumps(2))
    assert [(key, good) for key, good, _ in scan_pack(str(pack))] == [
        (keys[0], True),
        (keys[2], False),
    ]
    assert [key for key, *_ in scan_pack(str(pack), size)] == [keys[2]]


def counted(i: int, file: str) -> int:
    with open(file, "a") as shared:
        shared.write("x")
    return len(Path(file).read_text()) + 100 * i


@pytest.mark.parametrize("names", [["counted/1"], ["counted/1", "counted/2"]])
def test_a_packed_task_that_ran_again_has_the_later_result(lab: Lab, names: list[str]) -> None:
    file = Path("counter").absolute()
    numbers = each([1, 2, 3], axis="i")
    lab.workflow.add(task(pack=2)(counted), i=numbers, file=str(file))

    def run_all(*tasks: str) -> None:
        for one in tasks:
            assert lab.run(one).status == 0
        ended = JobEnd("COMPLETED", None, 0)
        lab.scheduler.says = dict.fromkeys(lab.scheduler.says, ended)

    lab.submit()
    run_all("counted/1", "counted/3")
    run = Run(lab.rundir.folder)
    assert run.results("counted") == {"1": 101, "2": 202, "3": 303}
    for before in (10, 20, 30):  # packs have random names: whichever is first
        file.write_text("x" * before)
        retry(lab.rundir.folder, site=lab.site, tasks=names, force=True)
        run_all("counted/1")
        assert not run.report().tasks
        assert run.results("counted")["1"] == 101 + before
        [key] = {node.key(0) for node in run.record.nodes.values()}
        assert lab.store.get("counted", key)["start"] > time.time() - 20
