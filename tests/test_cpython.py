"""CPython's own tests of executors, run on ours (Debian: libpython3.11-testsuite)."""

from __future__ import annotations

import subprocess
import sys
import unittest
from collections.abc import Iterator
from concurrent.futures import Executor as PythonExecutor
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, ClassVar

import pytest

from hpcpipe import Executor

theirs: Any = pytest.importorskip(
    "test.test_concurrent_futures", reason="apt install libpython3.11-testsuite"
)
# These start an interpreter that imports a pool by its name from concurrent.futures: see below for
# the same with ours. Theirs of workers that crash expect a pool that is broken from then on, and
# those of initializers, idle workers and contexts what a batch scheduler does not have.
BY_NAME = (
    "test_interpreter_shutdown",
    "test_submit_after_interpreter_shutdown",
    "test_hang_gh83386",
)


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have a scheduler of local processes, and runs, in a folder of their own."""
    TestExecutor.base = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPCPIPE_LOCAL", str(TestExecutor.base / "spool"))
        patch.setenv("XDG_STATE_HOME", str(TestExecutor.base / "state"))
        yield


class TestExecutor(
    theirs.ExecutorTest,  # type: ignore[misc]
    theirs.ExecutorShutdownTest,  # type: ignore[misc]
    theirs.WaitTests,  # type: ignore[misc]
    theirs.AsCompletedTests,  # type: ignore[misc]
    unittest.TestCase,
):
    worker_count: ClassVar[int] = 5
    base: ClassVar[Path]

    def executor_type(self, max_workers: int) -> PythonExecutor:
        return Executor(base_dir=self.base, site="local", gather=0.02, width=max_workers)

    def setUp(self) -> None:
        self.executor = self.executor_type(max_workers=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown(cancel_futures=True)

    def test_cancel_futures(self) -> None:
        """Theirs wants some of the calls to have begun; ours may all be in the queue still."""
        sleeps = [self.executor.submit(theirs.time.sleep, 0.1) for _ in range(50)]
        self.executor.shutdown(cancel_futures=True)
        assert all(one.done() for one in sleeps)
        assert any(one.cancelled() for one in sleeps)


for name in BY_NAME:
    setattr(TestExecutor, name, None)


BAD = """
import sys, threading, time
from hpcpipe import Executor

class Exits:
    def __reduce__(self):
        return sys.exit, (1,)

def slow(seconds):
    time.sleep(seconds)
    return seconds

if __name__ == "__main__":
    executor = Executor(site="local", gather=0.02)
"""


def program(base: Path, text: str) -> tuple[str, str]:
    """Run a program to its end; return what it printed, and its standard error."""
    file = base / "program.py"
    file.write_text(BAD + indent(dedent(text), "    "))
    done = subprocess.run(
        [sys.executable, file], cwd=base, text=True, capture_output=True, timeout=60, check=False
    )
    return done.stdout, done.stderr


def test_a_result_that_exits_as_it_is_read_stops_its_own_future_only() -> None:
    text = """
        bad, good = executor.submit(Exits), executor.submit(slow, 0.5)
        print(repr(bad.exception(30)), good.result(30), executor.submit(slow, 0).result(30))
        executor.shutdown()
    """
    assert program(TestExecutor.base, text) == ("SystemExit(1) 0.5 0\n", "")


def test_a_callback_that_exits_is_logged_and_stops_no_other_future() -> None:
    text = """
        executor.submit(slow, 0.1).add_done_callback(sys.exit)
        print(executor.submit(slow, 0.5).result(30))
        executor.shutdown()
    """
    printed, logged = program(TestExecutor.base, text)
    assert printed == "0.5\n"
    assert logged.startswith("a callback of <TaskFuture at ")


def test_a_thread_that_outlives_the_main_one_gets_its_results() -> None:
    text = """
        def work():
            print(executor.submit(slow, 1).result(30), executor.submit(slow, 0).result(30))
        threading.Thread(target=work).start()
    """
    assert program(TestExecutor.base, text) == ("1 0\n", "")


def test_no_call_is_taken_while_python_exits() -> None:
    text = """
        import atexit
        atexit.register(executor.submit, slow, 0)
        print(executor.submit(slow, 0).result(30))
    """
    printed, error = program(TestExecutor.base, text)
    assert printed == "0\n"
    assert "RuntimeError: cannot schedule new futures after interpreter shutdown" in error


def test_what_runs_is_seen_to_run_and_can_be_cancelled_in_silence() -> None:
    text = """
        future = executor.submit(slow, 60)
        give_up = time.monotonic() + 30
        while not future.running() and time.monotonic() < give_up:
            time.sleep(0.1)
        print(future.running(), future.cancel(), future.running())
        executor.shutdown()
    """
    assert program(TestExecutor.base, text) == ("True True False\n", "")


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_chunk_has_at_least_one_call(size: int) -> None:
    with (
        Executor(base_dir=TestExecutor.base, site="local") as executor,
        pytest.raises((ValueError, TypeError)),
    ):
        executor.map(abs, [1], chunksize=size)


def test_results_that_were_taken_are_kept_nowhere() -> None:
    text = """
        results = executor.map(bytes, [20_000_000 + n for n in range(12)])
        for _ in results:
            pass
        with open("/proc/self/status") as status:
            [held] = [line.split()[1] for line in status if line.startswith("VmRSS")]
        print(int(held) < 150_000)  # kB; all of them are 240 MB
        executor.shutdown()
    """
    assert program(TestExecutor.base, text) == ("True\n", "")
