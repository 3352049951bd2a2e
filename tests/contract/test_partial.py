"""A group step that goes on without a subject that failed, and is made again with all of them."""

from __future__ import annotations

from contract.harness import Cluster

STUDY = """
    import os
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=1, memory="100M", time="10m", queue="long")

    @task(**ASKED)
    def one(x):
        if x == "c" and not os.path.exists(HERE + "/mended"):
            raise ValueError(x)
        return x

    @task(**ASKED)
    def grow(x):
        return x + x

    @task(**ASKED)
    def total(xs):
        return " ".join(xs)

    @task(**ASKED)
    def report(text):
        return text.upper()

    wf = Workflow("study", base_dir="runs")
    grown = wf.add(grow, x=wf.add(one, x=each(["a", "b", "c", "d"])))
    wf.add(report, text=wf.add(total, xs=grown.gather("x", missing="skip", at_least=0.5)))
"""


def test_a_group_step_goes_on_without_those_that_failed_and_again_with_all(
    cluster: Cluster,
) -> None:
    cluster.write("study.py", STUDY)
    cluster.hpcpipe("submit", "study.py")
    ended = cluster.finish()
    assert ended["verdict"] == "finished: 2 of 10 tasks failed or were blocked"
    assert ended["partial"] == [
        {"task": "total", "without": ["grow/c"]},
        {"task": "report", "without": ["grow/c"]},
    ]
    assert "AA BB DD" in cluster.hpcpipe("results", "report").stdout
    cluster.write("mended", "")
    cluster.hpcpipe("retry")
    ended = cluster.finish()
    assert ended["verdict"] == "finished: all 10 tasks succeeded"
    assert ended["partial"] == []
    assert "AA BB CC DD" in cluster.hpcpipe("results", "report").stdout
