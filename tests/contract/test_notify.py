"""Being told by a job that a run has ended."""

from __future__ import annotations

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
