"""Tasks that share a machine which a job gets whole: at a time, and each by itself."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from contract.harness import Cluster, until

# Tasks of which each waits for all others of its node, and in vain if not all run at a time.
BESIDE = """
    import os
    import time
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)
    ASKED = dict(cpus=2, memory="100M", time="10m", queue="long")
    NAMES = ["a", "b", "c", "d"]

    @task(**ASKED)
    def meet(one):
        open(f"{{HERE}}/meet-{{one}}", "w").close()
        for _ in range(600):
            if all(os.path.exists(f"{{HERE}}/meet-{{other}}") for other in NAMES):
                break
            time.sleep(0.1)
        else:
            raise TimeoutError("the others are not there")
        print(one, "with", os.environ["OMP_NUM_THREADS"], flush=True)
        if one == "c" and not os.path.exists(HERE + "/mended"):
            raise ValueError(one)
        time.sleep({seconds})

    wf = Workflow("beside", base_dir="runs")
    if "meet" in {nodes}:
        wf.add(meet, one=each(NAMES))
    tool = ["sh", HERE + "/tool.sh", "{{one}}", "{seconds}"]
    if "tool" in {nodes}:
        wf.command(tool, name="tool", resources=ASKED, one=each(NAMES))
"""
TOOL = """
    cd "$(dirname "$0")"
    : >tool-"$1"
    for one in a b c d; do
      tries=0
      until [ -e tool-$one ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || exit 9
        sleep 0.1
      done
    done
    echo "$1 with $OMP_NUM_THREADS"
    [ "$1" != c ] || [ -e mended ] || exit 3
    sleep "$2"
"""


@pytest.fixture
def whole_machines(cluster: Cluster) -> Cluster:
    """A cluster whose jobs get whole machines, so its site file says, of eight cpus."""
    site = cluster.write(
        "whole.toml",
        f"""
        extends = "{cluster.dialect.site}"
        [[queues]]
        name = "long"
        exclusive = true
        max_cpus = 8
        """,
    )
    return replace(cluster, changed={"HPCPIPE_SITE": str(site)})


def share(cluster: Cluster, *nodes: str, seconds: int = 0) -> None:
    """Submit tasks of which four share a machine, and which stay there for so long."""
    cluster.write("beside.py", BESIDE.format(nodes=nodes, seconds=seconds))
    cluster.write("tool.sh", TOOL)
    assert "up to 4 side by side" in cluster.hpcpipe("plan", "beside.py").stdout
    cluster.hpcpipe("submit", "beside.py")


def test_tasks_that_share_a_machine_run_at_a_time_and_each_has_its_own_end_and_log(
    whole_machines: Cluster,
) -> None:
    cluster = whole_machines
    share(cluster, "meet", "tool")
    report = cluster.finish()
    told = {one["task"]: one["reason"] for one in report["failures"]}
    assert told == {"meet/c": "error", "tool/c": "exit"}
    assert [cluster.hpcpipe("logs", f"{node}/b").stdout for node in ("meet", "tool")] == [
        "b with 2\n"
    ] * 2
    assert "ValueError: c\n" in cluster.hpcpipe("logs", "meet/c").stdout
    assert len([*cluster.home.glob("runs/*/.hpcpipe/logs/*")]) == 2
    cluster.write("mended", "")
    cluster.hpcpipe("retry")
    good = {"all": 4, "done": 4}
    assert cluster.finish()["nodes"] == {"meet": good, "tool": good}


@pytest.mark.parametrize("node", ["meet", "tool"])
def test_tasks_that_share_a_machine_have_logs_while_they_run_and_are_cancelled_together(
    whole_machines: Cluster, node: str
) -> None:
    cluster = whole_machines
    cluster.write("mended", "")
    share(cluster, node, seconds=600)
    for name in "abcd":
        until(partial(_says, cluster, f"{node}/{name}", f"{name} with 2\n"))
    assert cluster.hpcpipe("cancel").stdout.startswith("4 tasks c")
    assert cluster.finish()["nodes"] == {node: {"all": 4, "cancelled": 4}}
    until(lambda: not strays(cluster.home))
    assert _says(cluster, f"{node}/b", "b with 2\n")


def _says(cluster: Cluster, task: str, line: str) -> bool:
    return cluster.hpcpipe("logs", task, status=None).stdout.startswith(line)


def strays(folder: Path) -> list[psutil.Process]:
    """List the processes that are in a folder or below."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found
