"""A node mapped over a list that a task returns runs with nobody logged in, however long it is."""

from __future__ import annotations

import json

import pytest

from contract.harness import Cluster

WORKFLOW = """
    import os
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="10m", queue="long")

    @task(**ASKED)
    def unzip(count):
        return [str(n) for n in range(count)]

    @task(**ASKED, retries=1, pack={pack})
    def work(item):
        with open(f"{{HERE}}/ran.{{item}}", "a") as ran:
            ran.write("x")
        if item == "2" and os.path.getsize(f"{{HERE}}/ran.{{item}}") == 1:
            raise ValueError("not yet")
        return int(item)

    @task(**ASKED)
    def total(numbers):
        return sum(numbers)

    wf = Workflow("wide", base_dir="runs")
    if "{count}" != "nested":
        wf.add(total, numbers=wf.add(work, item=each(wf.add(unzip, count={count!r}))).gather())
    else:
        lists = wf.add(unzip, count=each([0, 1, 4], axis="subject"))
        works = wf.add(work, item=each(lists, axis="part"))
        sums = wf.add(total, name="sums", numbers=works.gather("part"))
        wf.add(total, numbers=sums.gather())
"""


@pytest.mark.parametrize("count", [0, 3, "many", "nested"])
def test_what_follows_a_list_runs_with_nobody_logged_in(cluster: Cluster, count: int | str) -> None:
    count = cluster.dialect.many if count == "many" else count
    pack = 25 if count == cluster.dialect.many else 1
    cluster.write("flow.py", WORKFLOW.format(count=count, pack=pack))
    planned = cluster.hpcpipe("plan", "flow.py").stdout
    assert "width known when unzip has ended" in planned
    cluster.hpcpipe("submit", "flow.py")
    report = cluster.finish(seconds=300)
    assert report["failures"] == []
    ran = {file.name[4:]: file.read_text() for file in cluster.home.glob("ran.*")}
    names = ["0", "0", "1", "2", "3"] if count == "nested" else [*map(str, range(int(count)))]
    assert ran == {name: "x" * (names.count(name) + (name == "2")) for name in names}
    sums = sum(map(int, names))
    assert cluster.hpcpipe("results", "total").stdout.split()[-1] == str(sums)
    assert "Nothing to submit" in cluster.hpcpipe("submit", "flow.py").stdout
    extra = [
        fact["batch"]
        for line in (cluster.home / "runs/wide/.hpcpipe/ledger.jsonl").read_text().splitlines()
        if (fact := json.loads(line))["event"] == "submitted" and fact["batch"].startswith("+")
    ]
    assert len(extra) <= 2 + 2 * 3  # two for the list; two for retries, of each submission
