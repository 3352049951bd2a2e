"""``hpcpipe submit`` killed at every step from its lock to its last line of the ledger, and typed
again: by the scheduler's own list no task was submitted twice, and none is missing or held."""

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

import pytest

from contract import killed
from contract.dialects.base import Census
from contract.harness import Cluster, until
from hpcpipe.run import Run

WORKFLOW = """
    from hpcpipe import Workflow, each, task

    RAN = {ran!r}

    def note(name):
        with open(RAN, "a") as ran:
            ran.write(name + "\\n")
        return name

    @task(cpus=1, memory="100M", time="5m")
    def first(n):
        return note("first/%d" % n)

    @task(cpus=1, memory="120M", time="5m")  # unlike the first, lest the two be fused
    def second(n, of):
        return note("second/%d" % n)

    wf = Workflow({name!r}, base_dir="runs")
    n = each([1, 2], axis="n")
    wf.add(second, n=n, of=wf.add(first, n=n))
"""
# Not seen to run on this host meanwhile, or it would be waited for: its words are in a file.
LATE = """\
    #!/bin/sh
    [ -e '{slow}' ] || exec {real} "$@"
    {{ echo sleep 6; printf '{real}'; printf " '%s'" "$@"; echo; echo "touch '{arrived}'"; }} \\
        >'{begun}.sh'
    setsid sh '{begun}.sh' <&0 &
    touch '{begun}'
"""
Users = Mapping[str, Cluster]
TASKS = ["first/1", "first/2", "second/1", "second/2"]


def user(cluster: Cluster) -> Cluster:
    """Make a user in a folder of the name of their workflow, which nobody has or ever had."""
    name = f"killed-{secrets.token_hex(8)}"
    one = Cluster(cluster.dialect, cluster.home / name)
    one.home.mkdir()
    one.write("flow.py", WORKFLOW.format(ran=str(one.home / "ran"), name=name))
    return one


def submit(one: Cluster, kill_at: int) -> int:
    """Submit, killed at a step; give how the process ended."""
    argv = [sys.executable, killed.__file__, str(kill_at), "steps", "submit", "flow.py"]
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
    kills = range(1, lines[-1] + 3, cluster.dialect.stride)  # and after the last line was written
    users = [user(cluster) for _ in kills]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(submit_killed, users, kills, [kill >= lines[0] for kill in kills]))
    names = {one.home.name: one for one in (whole, *users)}
    told = when_settled(names)
    assert told == {name: Counter(good=len(TASKS)) for name in names}
    for name, one in names.items():
        assert sorted((one.home / "ran").read_text().split()) == TASKS, name
        report = Run(one.home / "runs" / name).report()
        assert report.finished, name
        assert not report.failures, name
        assert not report.adrift, name


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
    assert submit(one, started[cluster.dialect.ahead + which]) == -signal.SIGKILL
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
        late = any(words.total() < len(TASKS) for words in told.values())
        if not (live or late) or time.monotonic() > give_up:
            return told
        time.sleep(1)
