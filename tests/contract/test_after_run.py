"""A run that waits in the queue for another one, with nobody logged in."""

from __future__ import annotations

from contract.harness import Cluster, until

WORKFLOW = """
    import os
    import time

    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="5m", queue="long")

    @task(**ASKED, retries=1)
    def make(kind):
        with open(HERE + "/ran", "a") as ran:
            ran.write(kind + "\\n")
        with open(HERE + "/ran") as ran:
            first = ran.read().split().count(kind) == 1
        while not os.path.exists(HERE + "/go"):
            time.sleep(0.2)
        if kind == "{hopeless}" or first and kind == "again":
            raise ValueError("not yet")
        with open(HERE + "/made-" + kind, "w") as made:
            made.write(kind)

    @task(**ASKED)
    def use(kind):
        with open(HERE + "/made-" + kind) as made:
            return made.read()

    first = Workflow("first", base_dir="runs")
    first.add(make, kind=each(["good", "again"]))
    second = Workflow("second", base_dir="runs")
    second.add(use, kind=each(["good", "again"]))
"""


def begin(cluster: Cluster, hopeless: str = "") -> None:
    cluster.write("flow.py", WORKFLOW.format(hopeless=hopeless))
    cluster.hpcpipe("submit", "flow.py:first")
    said = cluster.hpcpipe("submit", "--after-run", "runs/first", "flow.py:second").stdout
    assert "2 tasks will be submitted by a job" in said
    (cluster.home / "go").touch()


def test_it_begins_when_all_of_the_other_run_has_succeeded_also_what_was_retried(
    cluster: Cluster,
) -> None:
    begin(cluster)
    report = cluster.finish("--run", "runs/second", seconds=240)
    assert report["nodes"]["use"] == {"all": 2, "done": 2}
    assert cluster.status("--run", "runs/first")["failures"] == []


def test_it_gives_up_where_the_other_run_fails(cluster: Cluster) -> None:
    begin(cluster, hopeless="good")
    report = cluster.finish("--run", "runs/second", seconds=240)
    assert {one["reason"] for one in report["failures"]} == {"other run"}
    assert "1 of 2 tasks failed" in report["failures"][0]["error"]
    ledger = cluster.home / "runs/second/.hpcpipe/ledger.jsonl"
    until(lambda: "gave up" in ledger.read_text())
