"""Direct distribution: futures of calls that are tasks, on every scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from contract.harness import PATIENCE, Cluster
from hpcpipe import Executor
from hpcpipe.errors import TasksFailed
from hpcpipe.store.ledger import Ledger
from hpcpipe.store.rundir import RunDir

ASKED: dict[str, Any] = {"cpus": 1, "memory": "60M", "time": "2m"}


@pytest.fixture
def user(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Each scheduler in turn, with this process as its user."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cluster.home)
    return cluster


def double(x: int) -> int:
    return 2 * x


def halve(x: int) -> float:
    if x % 2:
        raise ArithmeticError(f"{x} is odd")
    return x / 2


def look_up(name: str, table: dict[str, str]) -> str:
    return table[name]


def keep(source: Path) -> Path:
    Path("kept.txt").write_text(source.read_text().upper())
    return Path("kept.txt")


def die(how: int) -> None:
    os.kill(os.getpid(), how)


def arrays(folder: Path) -> int:
    """Count the submit commands of a run."""
    return len(Ledger(RunDir(folder).ledger).read().submissions)


def test_calls_made_together_are_one_array_and_each_future_gets_its_own_result(
    user: Cluster,
) -> None:
    called = threading.Event()
    with Executor("numbers", **ASKED) as executor:
        futures = {executor.submit(double, n): n for n in range(5)}
        next(iter(futures)).add_done_callback(lambda _: called.set())
        assert {futures[one]: one.result() for one in as_completed(futures, PATIENCE)} == {
            n: 2 * n for n in range(5)
        }
        assert called.is_set()
        assert arrays(executor.run.rundir.folder) == 1
        # Four calls in two elements.
        doubled = executor.map(double, [5, 6, 7, 8], chunksize=2, timeout=PATIENCE)
        assert list(doubled) == [10, 12, 14, 16]
        assert arrays(executor.run.rundir.folder) == 2
    assert user.status("--run", "hpcpipe_runs/numbers")["nodes"] == {
        "double": {"all": 9, "done": 9}
    }


def test_a_future_has_the_exception_of_its_call_and_no_other_is_stopped(user: Cluster) -> None:
    with Executor(**ASKED) as executor:
        results = executor.map(halve, [2, 3, 4], timeout=PATIENCE)
        assert next(results) == 1
        with pytest.raises(ArithmeticError, match="3 is odd") as raised:
            next(results)
        assert "line" in raised.value.__notes__[0]
        assert "hpcpipe explain halve/3" in raised.value.__notes__[0]
        [killed, well] = [executor.submit(die, signal.SIGKILL), executor.submit(halve, 4)]
        assert well.result(PATIENCE) == 2
        with pytest.raises(TasksFailed, match="killed by signal 9 in die/"):
            killed.result(PATIENCE)
    assert user.status()["nodes"]["halve"] == {"all": 4, "done": 3, "failed": 1}


def test_a_cancelled_future_takes_its_task_out_of_the_queue(user: Cluster) -> None:
    with Executor("long", **ASKED) as executor:
        long = executor.submit(time.sleep, 600)
        unsent = executor.submit(time.sleep, 601)
        assert unsent.cancel()
        executor.flush()
        assert long.cancel()
        assert wait([long, unsent], PATIENCE).not_done == set()
    with pytest.raises(CancelledError):
        long.result()
    report = user.finish("--run", "hpcpipe_runs/long")
    assert report["nodes"] == {"sleep": {"all": 1, "cancelled": 1}}


def test_a_constant_is_shipped_once_and_a_file_may_be_given_by_a_relative_path(
    user: Cluster,
) -> None:
    table = {str(n): str(n) * 40 for n in range(2000)}
    with Executor("study", **ASKED) as executor:
        executor.push(table=table)
        found = executor.map(look_up, ["7", "8"], timeout=PATIENCE)
        assert list(found) == ["7" * 40, "8" * 40]
        assert executor.submit(look_up, "a", table={"a": "b"}).result(PATIENCE) == "b"
        home = executor.run.rundir.home
        assert sum(file.stat().st_size for file in home.rglob("*.tasks")) < 20_000
        [pushed] = (home / "pushed").iterdir()
        assert pushed.stat().st_size > 200_000
        user.write("SAD07.txt", "brain")
        kept = executor.submit(keep, Path("SAD07.txt")).result(PATIENCE)
    assert kept == user.home / "hpcpipe_runs/study/keep/call-SAD07/kept.txt"
    assert kept.read_text() == "BRAIN"


PROGRAM = """
    import os, sys, time
    from pathlib import Path
    from hpcpipe import Executor

    def wait_for(sign, who):
        while not Path(sign).exists():
            time.sleep(0.1)
        with open(sign, "a") as ran:
            print(who, file=ran)
        return who

    if __name__ == "__main__":
        executor = Executor("shared", cpus=1, memory="60M", time="5m")
        futures = [executor.submit(wait_for, os.path.abspath("go"), who) for who in sys.argv[2:]]
        executor.flush()
        print("submitted", flush=True)
        if sys.argv[1] == "stay":
            print(*(future.result(90) for future in futures), flush=True)
        os._exit(0)  # without a word to anybody
"""


@pytest.fixture
def program(user: Cluster) -> Callable[..., subprocess.Popen[str]]:
    """Start a program that makes calls which end when the file ``go`` is there."""
    file = user.write("program.py", PROGRAM)

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(file), *words], cwd=user.home, stdout=subprocess.PIPE, text=True
        )

    return start


def test_calls_outlive_their_program_and_another_one_takes_them_up(
    user: Cluster, program: Callable[..., subprocess.Popen[str]]
) -> None:
    with program("go", "SAD01", "SAD02") as first:
        assert first.communicate(timeout=PATIENCE)[0] == "submitted\n"
    attached = Executor.attach(user.home / "hpcpipe_runs" / "shared")
    futures = attached.futures()
    assert not any(future.done() for future in futures.values())
    (user.home / "go").touch()
    assert {future.result(PATIENCE) for future in futures.values()} == {"SAD01", "SAD02"}
    # The same program, started again, finds all of it done, and runs what is new.
    with program("stay", "SAD01", "SAD02", "SAD03") as again:
        said, _ = again.communicate(timeout=PATIENCE)
    assert said == "submitted\nSAD01 SAD02 SAD03\n"
    assert sorted((user.home / "go").read_text().split()) == ["SAD01", "SAD02", "SAD03"]
    assert arrays(user.home / "hpcpipe_runs" / "shared") == 2


def test_calls_of_a_program_that_just_ends_are_handed_over(user: Cluster) -> None:
    program = """
        from hpcpipe import Executor
        future = Executor("calls", gather=600).submit(abs, -7)
    """
    file = user.write("program.py", program)
    words = [sys.executable, str(file)]
    subprocess.run(words, cwd=user.home, check=True, timeout=PATIENCE, env=user.environment)
    assert user.finish("--run", "hpcpipe_runs/calls")["nodes"] == {"abs": {"all": 1, "done": 1}}


def test_several_clients_share_a_run(
    user: Cluster, program: Callable[..., subprocess.Popen[str]]
) -> None:
    with program("stay", "a", "b") as one, program("stay", "b", "c", "d") as other:
        assert one.stdout is not None
        assert other.stdout is not None
        assert (one.stdout.readline(), other.stdout.readline()) == ("submitted\n",) * 2
        (user.home / "go").touch()
        assert one.communicate(timeout=PATIENCE)[0] == "a b\n"
        assert other.communicate(timeout=PATIENCE)[0] == "b c d\n"
    assert sorted((user.home / "go").read_text().split()) == ["a", "b", "c", "d"]
    report = user.status("--run", "hpcpipe_runs/shared")
    assert report["nodes"] == {"wait_for": {"all": 4, "done": 4}}
