"""Checkpoints: tasks save their state shortly before their time limit, or on SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import Lab, finished, until
from test_attempts import continuations, end, submitted

from hpcpipe import each, task
from hpcpipe.errors import ConfigError
from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.resources import Resources
from hpcpipe.run import Run
from hpcpipe.submit.checkpoint import find_checkpoint

EXIT = JobEnd("FAILED", Reason.EXIT, 1)
DEAF = "echo begun; exec sleep 60"
SCRIPT = "trap 'echo saved; exit 85' USR1; echo begun; while :; do sleep 0.05; done"


def save(kind: str) -> None:
    if kind == "deaf":
        print("begun", flush=True)
        time.sleep(60)
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))
    print("begun", flush=True)
    time.sleep(60)


@pytest.fixture(params=["python", "command"])
def begin(request: pytest.FixtureRequest, lab: Lab) -> Callable[..., None]:
    def submit(kinds: list[str], **asked: Any) -> None:
        asked = {"memory": "100M", "time": "5m", "checkpoint": "USR1@1m", **asked}
        if request.param == "python":
            lab.workflow.add(task(**asked)(save), kind=each(kinds), name="work")
        else:
            words = ["sh", "-c", f"if [ $1 = deaf ]; then {DEAF}; else {SCRIPT}; fi", "sh"]
            lab.workflow.command([*words, "{kind}"], name="work", kind=each(kinds), resources=asked)
        lab.submit()

    return submit


def begun(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    while b"begun" not in process.stdout.readline():
        assert process.poll() is None
    until(partial(catches, process.pid, signal.SIGTERM))  # sh traps it once it has started that


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler of a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def saved(lab: Lab, task: str) -> bool:
    outcome = lab.outcome(task)
    return (outcome["exit"], outcome["cause"]) == (85, "checkpoint")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_signal_of_a_checkpoint_or_a_first_term_has_a_task_save(
    lab: Lab, begin: Callable[..., None], number: int
) -> None:
    begin(["a"])
    with lab.start("work/a") as process:
        begun(process)
        process.send_signal(number)
        assert finished(process).status == 1
    assert saved(lab, "work/a")
    assert bool(lab.outcome("work/a").get("terminated")) is (number == signal.SIGTERM)


def test_an_element_sends_the_signal_itself_where_its_scheduler_does_not(
    lab: Lab, begin: Callable[..., None]
) -> None:
    begin(["a"], time="3s", checkpoint="USR1@1s")
    assert lab.run("work/a").status == 1
    assert saved(lab, "work/a")
    assert 1 < lab.outcome("work/a")["wall"] < 15


def test_a_task_in_a_pack_saves_too_and_a_second_term_ends_it(
    lab: Lab, begin: Callable[..., None]
) -> None:
    begin(["deaf", "b"], pack=2, checkpoint="HUP@1m")
    with lab.start("work/deaf") as process:
        begun(process)
        process.send_signal(signal.SIGHUP)
        begun(process)  # the next in the pack, as the first has ended
        os.kill(process.pid, signal.SIGTERM)
        finished(process)
    told = lab.outcome("work/deaf")
    assert (told["signal"], "not handle" in told["error"]) == (1, True)
    assert lab.outcome("work/b")["signal"] == signal.SIGTERM


def test_it_is_retried_for_free_as_long_as_it_makes_progress(lab: Lab) -> None:
    asked = {"memory": "100M", "time": "5m", "checkpoint": "USR1@1m"}
    words = ["sh", "-c", "exit 85", "{kind}"]
    lab.workflow.command(words, name="work", kind=each(["a"]), resources=asked)
    lab.submit()
    assert continuations(lab)  # without retries=
    for _ in range(11):
        lab.run("work/a")
        end(lab, "work/a", EXIT)
        if submitted(lab) != ["work/a"]:
            break
    ends = Run(lab.rundir.folder).record.attempts["work"]
    [some] = ends.values()
    assert [one[1] for one in some] == ["checkpoint"] * 10  # in no time at all: no progress


@pytest.mark.parametrize("said", ["USR1", "KILL@5m", "USR1@0s", "USR1@x", "USR1@20h"])
def test_what_is_no_checkpoint_is_refused(said: str) -> None:
    with pytest.raises(ConfigError):
        Resources.parse(checkpoint=said)


def test_it_needs_a_time_limit_that_comes_later() -> None:
    asked = Resources.parse(checkpoint="usr1@5m", time="1h")
    assert find_checkpoint(asked, warns=False) == ("USR1", 300, 3300)
    assert find_checkpoint(asked, warns=True) == ("USR1", 300, 0)
    for time_ in (None, 300):
        with pytest.raises(ConfigError):
            find_checkpoint(asked._replace(time=time_), warns=False)


def test_without_a_checkpoint_exit_85_is_a_failure_like_others(lab: Lab) -> None:
    lab.workflow.command(["sh", "-c", "exit 85"], name="work", resources={"retries": 0})
    lab.submit()
    lab.run("work")
    assert "cause" not in lab.outcome("work")
