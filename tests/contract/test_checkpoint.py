"""A task that saves its state before its time is over goes on in another job."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace

import pytest

from contract.harness import Cluster, until
from hpcpipe.schedulers.base import run_command
from hpcpipe.schedulers.slurm import Slurm

WORKFLOW = """
    import os
    import signal
    import sys
    import time

    from hpcpipe import Workflow, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="{time}", {asked})

    @task(**ASKED)
    def work():
        with open(HERE + "/ran", "a") as ran:
            ran.write("work\\n")
        with open(HERE + "/ran") as ran:
            if ran.read().split().count("work") > {times}:
                return "through"
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))
        while not os.path.exists(HERE + "/go"):
            time.sleep(0.2)
        time.sleep({linger})

    wf = Workflow("long", base_dir="runs")
    wf.add(work)
    if {commands}:
        wf.command(["sh", HERE + "/tool.sh"], name="tool", resources=ASKED)
"""
TOOL = """
    echo tool >>"$(dirname "$0")/ran"
    [ "$(grep -c tool "$(dirname "$0")/ran")" -lt 3 ] || exit 0
    trap 'exit 85' USR1
    while :; do sleep 0.2; done
"""


def ran(cluster: Cluster, name: str) -> int:
    file = cluster.home / "ran"
    return file.read_text().split().count(name) if file.exists() else 0


def begin(cluster: Cluster, **facts: object) -> None:
    cluster.write("tool.sh", TOOL)
    cluster.write("flow.py", WORKFLOW.format(**facts))
    cluster.hpcpipe("submit", "flow.py")


def requeuing(cluster: Cluster, asked: str) -> Cluster:
    """Submit one task where Slurm starts a job again by itself; its first start is cut short."""
    text = f'extends = "{cluster.dialect.site}"\n[slurm]\nrequeue = true\n'
    cluster = replace(cluster, changed={"HPCPIPE_SITE": str(cluster.write("lab.toml", text))})
    begin(cluster, time="10m", asked=asked, times=1, commands=False, linger=0)
    until(lambda: ran(cluster, "work") == 1)
    return cluster


def let_go(job: str) -> None:
    """Let a job that was requeued run again now, not in two minutes.

    Slurm waits that long because slurmd refuses to start a job in the second in which it was
    killed: "already killed, do not launch batch job". Slurm then marks the job as failed.
    """
    until(lambda: Slurm().poll([job])[job].native == "PENDING")
    seen = time.time()
    until(lambda: time.time() > seen + 2)
    Slurm().release([job])


def job_of(cluster: Cluster) -> str:
    ledger = (cluster.home / "runs/long/.hpcpipe/ledger.jsonl").read_text()
    [job] = [x.split('"job": "')[1].split('"')[0] for x in ledger.splitlines()
             if '"submitted"' in x and '"batch": "+' not in x]  # fmt: skip
    return job


def test_a_task_that_saves_its_state_goes_on_until_it_is_through(cluster: Cluster) -> None:
    asked = 'checkpoint="USR1@100s"'
    begin(cluster, time="2m", asked=asked, times=2, commands=True, linger=0)
    report = cluster.finish(seconds=400)
    assert report["failures"] == []
    assert (ran(cluster, "work"), ran(cluster, "tool")) == (3, 3)
    for node in ("work", "tool"):
        assert [end["reason"] for end in report["retried"][node]] == ["checkpoint"] * 2
    assert "in 3 attempts" in cluster.hpcpipe("explain", "work").stdout


def requeued(slurm: Cluster, asked: str) -> None:
    """Have a running task requeued, and let it run again at once."""
    slurm = requeuing(slurm, asked)
    job = job_of(slurm)
    subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    until(lambda: "queued" in slurm.status("--fresh")["nodes"]["work"])
    let_go(job)
    report = slurm.finish()
    assert report["failures"] == []
    assert (ran(slurm, "work"), report["retried"]) == (2, {})
    assert job_of(slurm) == job  # nothing else was submitted for it
    said = slurm.hpcpipe("explain", "work").stdout
    assert re.search(r"start 1    REQUEUED on lab\d.*: started again as the same job", said)


@pytest.mark.slurm
def test_a_task_that_is_requeued_while_it_runs_is_no_failure(slurm: Cluster) -> None:
    requeued(slurm, "")


@pytest.mark.slurm
def test_nor_is_it_retried_besides_with_retries_or_a_checkpoint(slurm: Cluster) -> None:
    requeued(slurm, 'retries=2, checkpoint="USR1@1m"')


@pytest.mark.slurm
def test_a_task_whose_node_fails_is_started_again_by_slurm_alone(slurm: Cluster) -> None:
    slurm = requeuing(slurm, 'retries=2, queue="gpu"')  # where nothing else runs
    job = job_of(slurm)
    set_node = slurm.dialect.set_node
    assert set_node is not None
    ask = ["squeue", "-h", "-j", job, "-o", "%N"]
    node = subprocess.run(ask, text=True, capture_output=True, check=True).stdout.strip()
    set_node(node, "DOWN")
    try:
        until(lambda: Slurm().poll([job])[job].native == "PENDING")
    finally:
        set_node(node, "RESUME")
    (slurm.home / "go").touch()
    let_go(job)
    report = slurm.finish()
    assert report["failures"] == []
    assert (ran(slurm, "work"), report["retried"], job_of(slurm)) == (2, {}, job)
    assert os.path.exists(slurm.home / "go")


PREEMPTED = """
    extends = "{site}"

    [slurm]
    requeue = {requeue}

    [[queues]]
    name = "{queue}"
    max_time = "1h"
    max_gpus = 2
"""


def preempted(slurm: Cluster, queue: str, asked: str = "") -> tuple[Cluster, str]:
    """Submit a task to a queue whose jobs others preempt, and have that happen once it runs."""
    requeue = "true" if queue == "spare" else "false"
    text = PREEMPTED.format(site=slurm.dialect.site, requeue=requeue, queue=queue)
    site = str(slurm.write("lab.toml", text))
    slurm = replace(slurm, changed={"HPCPIPE_SITE": site})
    asked = f'queue="{queue}", gpus=2, {asked}'
    begin(slurm, time="10m", asked=asked, times=1, commands=False, linger=0)
    until(lambda: ran(slurm, "work") == 1)
    job = job_of(slurm)
    ask = ("sbatch", "--partition=gpu", "--gres=gpu:2", "--mem=50M", "--output=/dev/null")
    run_command((*ask, "--wrap=true"), slurm.home)
    return slurm, job


@pytest.mark.slurm
def test_a_task_that_is_preempted_and_ended_is_retried_and_uses_no_attempt(slurm: Cluster) -> None:
    slurm, _ = preempted(slurm, "spot", "retries=0")
    report = slurm.finish()
    assert report["failures"] == []
    assert [end["reason"] for end in report["retried"]["work"]] == ["preempted"]
    assert ran(slurm, "work") == 2


@pytest.mark.slurm
def test_a_task_that_is_preempted_saves_its_state_first(slurm: Cluster) -> None:
    slurm, _ = preempted(slurm, "spot", 'retries=0, checkpoint="USR1@1m"')
    report = slurm.finish()
    assert report["failures"] == []
    [end] = report["retried"]["work"]
    assert end["reason"] == "checkpoint"
    assert ran(slurm, "work") == 2


@pytest.mark.slurm
def test_a_task_that_is_preempted_and_requeued_is_no_failure(slurm: Cluster) -> None:
    slurm, job = preempted(slurm, "spare")
    until(lambda: Slurm().poll([job])[job].native == "PENDING")
    let_go(job)
    report = slurm.finish()
    assert (report["failures"], report["retried"], job_of(slurm)) == ([], {}, job)
    assert ran(slurm, "work") == 2
    said = slurm.hpcpipe("explain", "work").stdout
    assert re.search(r"start 1    (PREEMPTED|REQUEUED) on lab4", said)
