"""Being told by a job that a run has ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from contract.harness import Cluster, until

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


@pytest.mark.can("mailbox")
def test_the_scheduler_mails_how_the_run_has_ended(cluster: Cluster) -> None:
    cluster.write("study.py", STUDY)
    said = cluster.hpcpipe("submit", "study.py", "--notify", "mail:ada@example.org").stdout
    assert "When it has ended, the scheduler mails ada@example.org." in said
    cluster.finish()
    ledger = cluster.home / "runs/study/.hpcpipe/ledger.jsonl"
    until(lambda: mailed(ledger))
    [job] = mailed(ledger)
    log = cluster.home / "runs/study/.hpcpipe/logs/+mail-1.out"
    until(lambda: log.exists() and "finished: 1 of 3 tasks failed" in log.read_text())
    assert cluster.dialect.mailbox is not None
    sent = cluster.dialect.mailbox()
    about = re.compile(rf"-s .*{job}\b.*\bfailed\.study-1\b.* ada@example\.org")
    until(lambda: about.search(sent.read_text()))
    assert len(about.findall(sent.read_text())) == 1


def mailed(ledger: Path) -> list[str]:
    """List the jobs at whose end mail is sent."""
    facts = map(json.loads, ledger.read_text().splitlines())
    return [
        one["job"] for one in facts if (one["event"], one.get("batch")) == ("submitted", "+mail-1")
    ]
