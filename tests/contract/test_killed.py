"""``hpcpipe submit`` killed at every step from its lock to its last line of the ledger, and typed
again: by the scheduler's own list no task was submitted twice, and none is missing or held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from contract import killed
from contract.harness import Cluster, until
from hpcpipe.run import Run
from hpcpipe.schedulers.local.spool import Spool

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

    @task(cpus=1, memory="100M", time="5m")
    def second(n, of):
        return note("second/%d" % n)

    wf = Workflow({name!r}, base_dir="runs")
    n = each([1, 2], axis="n")
    wf.add(second, n=n, of=wf.add(first, n=n))
"""
TASKS = ["first/1", "first/2", "second/1", "second/2"]


def user(cluster: Cluster, number: int) -> Cluster:
    """Make a user with a workflow of a name that nobody else has, nor had before."""
    one = Cluster(cluster.name, cluster.home / str(number))
    one.home.mkdir()
    name = f"killed-{os.getpid()}-{number}"
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
    whole = user(cluster, 0)
    assert submit(whole, 0) == 0
    steps = (whole.home / "steps").read_text().splitlines()
    lines = [at for at, step in enumerate(steps, 1) if step.endswith("ledger.jsonl")]
    assert len(lines) == 6, "run, twice submitting and submitted, released: are these not all?"
    kills = range(1, lines[-1] + 3)  # and after the last line was written
    users = [user(cluster, number) for number in kills]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(submit_killed, users, kills, [kill >= lines[0] for kill in kills]))
    names = {f"killed-{os.getpid()}-{number}": one for number, one in enumerate([whole, *users])}
    ended = until(lambda: by_the_scheduler(cluster, names), seconds=180, pause=1)
    assert ended == {name: Counter({"COMPLETED": len(TASKS)}) for name in names}
    for name, one in names.items():
        assert sorted((one.home / "ran").read_text().split()) == TASKS, name
        report = Run(one.home / "runs" / name).report()
        assert report.finished, name
        assert not report.failures, name
        assert not report.adrift, name


def by_the_scheduler(cluster: Cluster, names: dict[str, Cluster]) -> dict[str, Counter[str]] | None:
    """Count how the elements of every workflow ended, or None while any is queued or running."""
    find = {"local": _by_spools, "slurm": _by_sacct}[cluster.name]
    return find(names)


def _by_spools(names: dict[str, Cluster]) -> dict[str, Counter[str]] | None:
    ended = {}
    for name, one in names.items():
        spool = Spool(one.spool)
        jobs = spool.ids()
        if not all(map(spool.ended, jobs)):
            return None
        events = [event for job in jobs for event in spool.events(job) if event.end]
        ended[name] = Counter(e.word for e in events for _ in range(e.first, e.last + 1))
    return ended


def _by_sacct(names: dict[str, Cluster]) -> dict[str, Counter[str]] | None:
    jobs = [f"{node}.{name}" for name in names for node in ("first", "second")]
    argv = ["sacct", "-nPX", "-S", "now-1hour", f"--name={','.join(jobs)}", "-o", "JobName,State"]
    told = subprocess.run(argv, text=True, capture_output=True, check=True, timeout=60).stdout
    ended = {name: Counter[str]() for name in names}
    for line in told.splitlines():
        job, state = line.split("|")
        if state in ("PENDING", "RUNNING", "REQUEUED"):
            return None
        ended[job.partition(".")[2]][state] += 1
    return ended if all(count.total() for count in ended.values()) else None
