"""``hpcpipe submit``, ``cancel`` and ``retry`` killed at steps from their lock on, and typed again:
by the scheduler's own list no task was submitted twice, and none is missing, held or left."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from contract import killed
from contract.dialects import LOCAL
from contract.dialects.base import Census
from contract.harness import Cluster, until
from hpcpipe.jobs import State
from hpcpipe.run import Run

WORKFLOW = """
    import glob
    import os
    import time

    from hpcpipe import Workflow, each, task

    RAN, GO = {ran!r}, {go!r}

    def note(name):
        with open(RAN, "a") as ran:
            ran.write(name + "\\n")
        return name

    @task(cpus=1, memory="100M", time="5m"{retries})
    def first(n):
        {before}
        return note("first/%d" % n)

    @task(cpus=1, memory="120M", time="5m"{retries})  # unlike the first, lest they be fused
    def second(n, of):
        return note("second/%d" % n)

    wf = Workflow({name!r}, base_dir="runs")
    n = each([1, 2], axis="n")
    wf.add(second, n=n, of=wf.add(first, n=n))
"""
# Not seen to run on this host meanwhile, or it would be waited for: its words are in a file.
LATE = """\
    #!/bin/bash
    [ -e '{slow}' ] || exec {real} "$@"
    printf '%s\\n' 'sleep 6' "{real} ${{*@Q}}" "touch '{arrived}'" >'{begun}.sh'
    setsid bash '{begun}.sh' <&0 &
    touch '{begun}'
"""
WAIT = "while not os.path.exists(GO): time.sleep(0.2)"
FAIL = "assert n == 2 or os.path.exists(GO)"
FAIL_ONCE = """if n == 1 and not os.path.exists(GO):
            open(GO, "w").close()
            raise ValueError("not yet")
        while not glob.glob("runs/*/.hpcpipe/results/first/*.err"): time.sleep(0.2)"""
# Started by every Python of a user's: kills the first that continues the run, as one that waited
# for all jobs, which gets three words, or in an element that is about to begin, with two.
SITECUSTOMIZE = """
    import os
    import sys

    if sys.orig_argv[-{words} - 1 : -{words}] == ["from hpcpipe.continuing import main; main()"]:
        at = {home!r} + "/kill_at"
        try:
            os.rename(at, at + ".taken")
        except OSError:
            pass
        else:
            sys.path.append({tests!r})
            from contract.killed import watch

            watch(int(open(at + ".taken").read()), {home!r} + "/steps")
"""
SWEPT = pytest.mark.can("times")  # Slurm and Grid Engine: tests/test_submit.py sweeps in memory
Users = Mapping[str, Cluster]
TASKS = ["first/1", "first/2", "second/1", "second/2"]


def user(cluster: Cluster, before: str = "pass") -> Cluster:
    """Make a user in a folder of the name of their workflow, which nobody has or ever had.

    ``before`` is what the first tasks do before anything else.
    """
    name = f"killed-{secrets.token_hex(8)}"
    one = Cluster(cluster.dialect, cluster.home / name)
    one.home.mkdir()
    ran, go = str(one.home / "ran"), str(one.home / "go")
    retries = ", retries=1" if before is FAIL_ONCE else ""
    words = {"ran": ran, "go": go, "name": name, "before": before, "retries": retries}
    one.write("flow.py", WORKFLOW.format(**words))
    return one


def submit(one: Cluster, kill_at: int) -> int:
    """Submit, killed at a step; give how the process ended."""
    return typed(one, kill_at, "submit", "flow.py")


def typed(one: Cluster, kill_at: int, *words: str) -> int:
    """Type a command, killed at a step; give how the process ended."""
    argv = [sys.executable, killed.__file__, str(kill_at), "steps", *words]
    return subprocess.run(
        argv, cwd=one.home, env=one.environment, timeout=60, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    ).returncode  # fmt: skip


def submit_killed(one: Cluster, kill_at: int, twice: bool) -> None:
    """Submit, killed at a step; perhaps again, killed at the same one; and again to the end."""
    assert submit(one, kill_at) == -signal.SIGKILL
    if twice:
        assert submit(one, kill_at) in (0, -signal.SIGKILL)
    one.hpcpipe("submit", "flow.py")


def test_killed_anywhere_and_typed_again_nothing_is_twice_or_missing(cluster: Cluster) -> None:
    whole = user(cluster)
    assert submit(whole, 0) == 0
    steps = (whole.home / "steps").read_text().splitlines()
    lines = [at for at, step in enumerate(steps, 1) if step.endswith("ledger.jsonl")]
    assert len(lines) == 6, "run, twice submitting and submitted, released: are these not all?"
    # Until the first line the steps are files, the same on every scheduler: one tries them all.
    first = 1 if cluster.dialect is LOCAL else lines[0]
    at = some(range(first, lines[-1] + 3), cluster)  # and after the last line was written
    users = [user(cluster) for _ in at]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(submit_killed, users, at, [kill >= lines[0] for kill in at]))
    names = {one.home.name: one for one in (whole, *users)}
    told = when_settled(names)
    assert told == {name: Counter(good=len(TASKS)) for name in names}
    check_all_ran_once(names)


def check_all_ran_once(names: Users) -> None:
    """Look at what the tasks wrote, and at the report."""
    for name, one in names.items():
        assert sorted((one.home / "ran").read_text().split()) == TASKS, name
        report = Run(one.home / "runs" / name).report()
        assert report.finished, name
        assert not report.failures, name
        assert not report.adrift, name


def kills(one: Cluster, command: str) -> range:
    """Type a command to its end, and give steps at which it is to be killed next time."""
    assert typed(one, 0, command) == 0
    steps = len((one.home / "steps").read_text().splitlines())
    return some(range(1, steps + 1), one)


def some(steps: range, one: Cluster) -> range:
    """Choose ten steps; all of them on local processes, or where all is to be tried."""
    every = one.dialect is LOCAL or os.environ.get("HPCPIPE_TEST_ALL")
    return steps if every else steps[:: max(1, len(steps) // 10)]


@SWEPT
def test_cancel_killed_anywhere_leaves_nothing_and_what_is_submitted_again_runs_once(
    cluster: Cluster,
) -> None:
    def cancelled(one: Cluster, kill_at: int, again: bool) -> None:
        assert submit(one, 0) == 0
        assert typed(one, kill_at, "cancel") in (0, -signal.SIGKILL)
        if again:  # else submitted at once
            one.hpcpipe("cancel")
            states = {failure["task"]: failure["state"] for failure in one.status()["failures"]}
            # What waits for a job that is cancelled first may leave the queue at once.
            ends = {"first": {State.CANCELLED}, "second": {State.CANCELLED, State.BLOCKED}}
            assert [*sorted(states)] == TASKS
            assert all(state in ends[name[:-2]] for name, state in states.items()), states
            until(lambda: not census({one.home.name: one})[one.home.name]["live"])
        one.hpcpipe("submit", "flow.py")
        (one.home / "go").touch()  # not before: what is being cancelled could go on for a moment

    whole = user(cluster, WAIT)
    assert submit(whole, 0) == 0
    at = kills(whole, "cancel")
    users = [user(cluster, WAIT) for _ in at]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(cancelled, users, at, cycle([False, True])))
    names = {one.home.name: one for one in users}
    told = when_settled(names)
    assert {(words["live"], words["good"]) for words in told.values()} == {(0, len(TASKS))}
    check_all_ran_once(names)


@SWEPT
def test_retry_killed_anywhere_and_typed_again_runs_once_what_failed(cluster: Cluster) -> None:
    def retried(one: Cluster, kill_at: int) -> None:
        assert len(one.finish()["failures"]) == 2
        (one.home / "go").touch()
        assert typed(one, kill_at, "retry") in (0, -signal.SIGKILL)
        one.hpcpipe("retry")

    whole = user(cluster, FAIL)
    assert submit(whole, 0) == 0
    assert len(whole.finish()["failures"]) == 2
    (whole.home / "go").touch()
    at = kills(whole, "retry")
    users = [user(cluster, FAIL) for _ in at]
    with ThreadPoolExecutor(3) as pool:
        assert not any(pool.map(partial(submit, kill_at=0), users))
        list(pool.map(retried, users, at))
    names = {one.home.name: one for one in (whole, *users)}
    told = when_settled(names)
    assert {(words["live"], words["good"]) for words in told.values()} == {(0, len(TASKS))}
    check_all_ran_once(names)


@SWEPT
@pytest.mark.parametrize(
    "words",
    [3, *([2] if os.environ.get("HPCPIPE_TEST_ALL") else [])],  # tests/test_continuation.py has it
    ids=lambda words: {3: "a job", 2: "an element"}[words],
)
def test_a_continuation_killed_anywhere_loses_and_doubles_nothing(
    cluster: Cluster, words: int
) -> None:
    tests = str(Path(__file__).parents[1])

    def continued(kill_at: int) -> Cluster:
        one = user(cluster, FAIL_ONCE)
        code = SITECUSTOMIZE.format(home=str(one.home), tests=tests, words=words)
        one.write("sitecustomize.py", code)
        one.write("kill_at", str(kill_at))
        one = replace(one, changed={"PYTHONPATH": str(one.home)})
        one.hpcpipe("submit", "flow.py")
        return one

    whole = continued(0)
    until((whole.home / "steps").exists)
    steps = len((whole.home / "steps").read_text().splitlines())
    at = some(range(1, steps + 1), whole)
    with ThreadPoolExecutor(3) as pool:
        users = list(pool.map(continued, at))
    names = {one.home.name: one for one in (whole, *users)}
    told = when_settled(names)
    assert not any(words["live"] for words in told.values())
    check_all_ran_once(names)
    assert all((one.home / "kill_at.taken").exists() for one in users)


@pytest.mark.can("commands", "late")
@pytest.mark.parametrize("which", [0, 1], ids=["the held one", "the dependent one"])
def test_a_command_that_arrives_late_is_taken_back_and_runs_nothing_twice(
    cluster: Cluster, which: int
) -> None:
    slow, begun, arrived = (cluster.home / name for name in ("slow", "begun", "arrived"))
    command = cluster.dialect.commands[0]
    late = LATE.format(slow=slow, begun=begun, arrived=arrived, real=shutil.which(command))
    cluster.write(command, late)
    (cluster.home / command).chmod(0o755)
    whole, one = user(cluster), user(cluster)
    one = replace(one, changed={"PATH": f"{cluster.home}:{os.environ['PATH']}"})
    assert submit(whole, 0) == 0
    steps = (whole.home / "steps").read_text().splitlines()
    begins = [f"subprocess.Popen {command}", "has started a command"]
    started = [at for at in range(2, len(steps) + 1) if steps[at - 2 : at] == begins]
    slow.touch()
    ahead = cluster.dialect.ahead
    assert submit(one, started[ahead + which * cluster.dialect.apart]) == -signal.SIGKILL
    until(begun.exists)
    slow.unlink()
    one.hpcpipe("submit", "flow.py")
    assert one.finish()["failures"] == []
    names = {one.home.name: one}
    # By the file: an element that just ends is one more, too, if told as running and as ended.
    until(arrived.exists)
    if which == 0 or cluster.dialect.after_ended:  # else it is refused when it arrives
        until(lambda: census(names)[one.home.name].total() > len(TASKS))
    one.hpcpipe("submit", "flow.py")
    until(lambda: not census(names)[one.home.name]["live"])
    assert sorted((one.home / "ran").read_text().split()) == TASKS


def census(names: Users) -> Census:
    """Count the live, the good and the other elements of each workflow, by the scheduler's list."""
    [dialect] = {one.dialect for one in names.values()}
    return dialect.census({name: one.spool for name, one in names.items()})


def when_settled(names: Users) -> Census:
    """Ask until nothing is queued or running and nothing missing, or long enough."""
    give_up = time.monotonic() + 300
    while True:
        told = census(names)
        live = any(words["live"] for words in told.values())
        late = any(words["good"] < len(TASKS) for words in told.values())
        if not (live or late) or time.monotonic() > give_up:
            return told
        time.sleep(1)
