"""A log that would fill the filesystem: cut on every scheduler, whoever has opened it."""

from __future__ import annotations

from dataclasses import replace

from contract.harness import Cluster

LOUD = """
    import time
    from hpcpipe import Workflow, task

    ASKED = dict(cpus=1, memory="100M", time="10m", queue="long")
    LINES = 'i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); printf "%0999d\\n" 1; done'
    TOOL = f"echo begins; {LINES}; sleep 4; echo ends"

    @task(**ASKED)
    def loud():
        print("begins")
        for _ in range(3000):
            print("." * 999)
        time.sleep(4)  # the log is looked at every two seconds
        print("ends")

    wf = Workflow("loud", base_dir="runs")
    wf.add(loud)
    wf.command(["sh", "-c", TOOL], name="tool", resources=ASKED)
"""


def test_a_log_over_the_limit_of_the_site_loses_its_middle(cluster: Cluster) -> None:
    site = cluster.write(
        "short.toml",
        f"""
        extends = "{cluster.dialect.site}"
        [limits]
        log_size = "2M"
        """,
    )
    cluster = replace(cluster, changed={"HPCPIPE_SITE": str(site)})
    cluster.write("loud.py", LOUD.replace("\\n", "\\\\n"))
    cluster.hpcpipe("submit", "loud.py")
    assert cluster.finish()["verdict"] == "finished: all 2 tasks succeeded"
    for node in ("loud", "tool"):
        lines = cluster.hpcpipe("logs", node).stdout.splitlines()
        assert (lines[0], lines[-1]) == ("begins", "ends")
        assert "hpcpipe: cut out here, as the log was over 2 MB" in lines
        assert 1000 < len(lines) < 2000
    assert len(cluster.status()["cut_logs"]) == 2
