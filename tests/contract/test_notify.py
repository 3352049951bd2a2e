"""Being told by a job that a run has ended."""

from __future__ import annotations

import json
from pathlib import Path

from contract.harness import Cluster, until
from hpcpipe.schedulers.base import run_command

STUDY = """
    from hpcpipe import Workflow, each, task

    @task(cpus=1, memory="100M", time="10m", queue="long")
    def halve(x):
        return 10 // x

    wf = Workflow("study", base_dir="runs")
    wf.add(halve, x=each([0, 1, 2]))
"""


def test_a_job_tells_once_how_the_run_has_ended(cluster: Cluster) -> None:
    cluster.write("study.py", STUDY)
    line = 'echo "$HPCPIPE_VERDICT" >>told'
    cluster.hpcpipe("submit", "study.py", "--notify", line)
    cluster.finish()
    told = cluster.home / "told"
    until(told.exists)
    until(lambda: told.read_text() == "study finished: 1 of 3 tasks failed\n")


def test_slurm_is_asked_to_mail_how_the_run_has_ended(slurm: Cluster) -> None:
    slurm.write("study.py", STUDY)
    said = slurm.hpcpipe("submit", "study.py", "--notify", "mail:ada@example.org").stdout
    assert "When it has ended, the scheduler mails ada@example.org." in said
    slurm.finish()
    ledger = slurm.home / "runs/study/.hpcpipe/ledger.jsonl"
    until(lambda: mailed(ledger))
    [job] = mailed(ledger)
    shown = run_command(("scontrol", "show", "job", job)).stdout
    assert " JobName=failed.study-1\n" in shown
    assert {"MailUser=ada@example.org", "MailType=END"} <= {*shown.split()}
    log = slurm.home / "runs/study/.hpcpipe/logs/+mail-1.out"
    until(lambda: log.exists() and "finished: 1 of 3 tasks failed" in log.read_text())


def mailed(ledger: Path) -> list[str]:
    """List the jobs at whose end mail is sent."""
    facts = map(json.loads, ledger.read_text().splitlines())
    return [
        one["job"] for one in facts if (one["event"], one.get("batch")) == ("submitted", "+mail-1")
    ]
