"""Every way to fail in one run of each real scheduler: told apart, mended, retried, green."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from contract.dialects import DIALECTS
from contract.harness import Bench, Cluster, tried, until

# Nothing else may run on the node that is set DOWN: each part has a partition of its own.
WORKFLOW = """
    import os
    import signal
    import subprocess
    import sys
    import time

    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)  # no Path: the folder's content would be an input
    ASKED = dict(cpus=1, memory="100M", time="{time}", queue="long")
    KINDS = ["good", "raises", "exits", "signal", "full", "memory", "time", "cancelled"]

    def begin(name):
        argv = ["sh", "-c", {begun!r}]
        words = subprocess.run(argv, text=True, capture_output=True, check=True).stdout.split()
        with open(HERE + "/ran", "a") as ran:
            ran.write(" ".join((name, *words)) + "\\n")
        return os.path.exists(HERE + "/mended")

    @task(**ASKED)
    def work(kind):
        if begin("work/" + kind):
            return kind
        if kind == "raises":
            raise ValueError("no such file: T1/SAD55.mat")
        if kind == "exits":
            sys.exit(3)
        if kind == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "full":
            with open("/dev/full", "w") as full:
                full.write("x")
        hog = b"x" * (300 << 20) if kind == "memory" else b""
        if kind != "good":
            time.sleep(600)
        return kind

    @task(**ASKED)
    def next_work(kind):
        begin("next_work/" + kind)
        return kind

    @task(**ASKED | {{"queue": "gpu"}})
    def alone():
        if not begin("alone"):
            time.sleep(600)

    wf = Workflow("broken", base_dir="runs")
    wf.add(next_work, kind=wf.add(work, kind=each(KINDS)))
    kinds = ["good", "missing", "full", "memory", "time"]
    tool = wf.command(
        ["sh", HERE + "/tool.sh", "tool", "{{kind}}"],
        name="tool", resources=ASKED, kind=each(kinds),
    )
    wf.command(
        ["sh", HERE + "/tool.sh", "next_tool", "{{kind}}"],
        name="next_tool", resources=ASKED, kind=each(kinds), after=[tool],
    )
    if {alone}:
        wf.add(alone)
"""
TOOL = """
    cd "$(dirname "$0")"
    echo "$1/$2" $({begun}) >> ran
    [ -e mended ] && exit
    case $1/$2 in
      tool/memory)  # together, as a limit of each process by itself would not be the job's
        for nth in 1 2 3 4 5; do
          python3 -c 'import time; hog = b"x" * (60 << 20); time.sleep(600)' &
        done
        wait ;;
      tool/missing) no-such-tool ;;
      tool/full) echo x | cat >/dev/full ;;
      tool/time) sleep 600 ;;
    esac
"""
OWN = {
    "work/raises": ("failed", "error"),
    "work/exits": ("failed", "exit"),
    "work/signal": ("failed", "signal"),
    "work/full": ("failed", "no space left on disk"),
    "work/memory": ("failed", "out of memory"),
    "work/time": ("failed", "time limit"),
    "work/cancelled": ("cancelled", "cancelled"),
    "tool/missing": ("failed", "exit"),
    "tool/full": ("failed", "no space left on disk"),
    "tool/memory": ("failed", "out of memory"),
    "tool/time": ("failed", "time limit"),
}
BLOCKED = {f"next_{name}": ("blocked", "upstream failed") for name in OWN}


@dataclass(frozen=True)
class Broken:
    """A run in which everything that can go wrong did, and what was said of it."""

    cluster: Cluster
    report: dict[str, Any]
    screen: str

    @property
    def expected(self) -> dict[str, tuple[str, str]]:
        """Every task that is not good: its state and reason."""
        node_down = {"alone": ("failed", "node failure")} if self.cluster.dialect.set_node else {}
        return OWN | BLOCKED | node_down


@pytest.fixture(scope="module", params=[one.param for one in DIALECTS if one.short_time])
def broken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    with tried(request.param, tmp_path_factory.mktemp("broken")) as cluster:
        report = _break(cluster)
        yield Broken(cluster, report, cluster.hpcpipe("status").stdout)


def _break(cluster: Cluster) -> Any:
    """Run the workflow that breaks, and give its last report."""
    dialect = cluster.dialect
    set_node, begun = dialect.set_node, f"{dialect.element}; {dialect.node}"
    words = {"begun": begun, "time": dialect.short_time, "alone": set_node is not None}
    cluster.write("broken.py", WORKFLOW.format(**words))
    cluster.write("tool.sh", TOOL.replace("{begun}", begun))
    cluster.hpcpipe("submit", "broken.py")
    others = Bench(cluster, cluster.home / "elsewhere").scheduler
    others.cancel([_started(cluster, "work/cancelled")[0]])
    if set_node is None:
        return cluster.finish(seconds=240)
    node = _started(cluster, "alone")[1]
    try:
        set_node(node, "DOWN")
        return cluster.finish(seconds=240)
    finally:
        set_node(node, "RESUME")


def _ran(cluster: Cluster) -> dict[str, list[tuple[str, str]]]:
    """Say what ran: the element and the node of every start, by task."""
    ran: dict[str, list[tuple[str, str]]] = {}
    file = cluster.home / "ran"
    for line in file.read_text().splitlines() if file.exists() else ():
        name, element, node = line.split()
        ran.setdefault(name, []).append((element, node))
    return ran


def _started(cluster: Cluster, name: str) -> tuple[str, str]:
    return until(lambda: _ran(cluster).get(name))[0]


def test_each_failure_is_told_apart(broken: Broken) -> None:
    told = {one["task"]: (one["state"], one["reason"]) for one in broken.report["failures"]}
    assert told == broken.expected
    done = Counter({name: node.get("done", 0) for name, node in broken.report["nodes"].items()})
    assert +done == Counter(("work", "next_work", "tool", "next_tool"))
    assert not broken.report["trouble"]


def test_a_failure_says_what_the_task_itself_said(broken: Broken) -> None:
    failures = {one["task"]: one for one in broken.report["failures"]}
    assert failures["work/raises"]["error"] == "ValueError: no such file: T1/SAD55.mat"
    assert failures["work/exits"]["exit"] == 3
    assert re.fullmatch("exit 127: .*no-such-tool: .+", failures["tool/missing"]["error"])
    for name in ("work/full", "tool/full"):
        assert "No space left on device" in failures[name]["error"]
    assert "of 100 MB" in failures["work/memory"]["error"]
    for name, (element, _) in ((name, _ran(broken.cluster)[name][0]) for name in OWN):
        assert failures[name]["job_id"] == element
        assert failures[name]["attempt"] == 1
    log = broken.cluster.hpcpipe("logs", "work/raises").stdout
    assert "Traceback" in log
    assert "T1/SAD55.mat" in log


def test_the_screen_names_each_cause(broken: Broken) -> None:
    for reason in {reason for _, reason in broken.expected.values()}:
        assert re.search(rf"^(why|   ) +\d+  {reason}  ", broken.screen, re.M), broken.screen


def test_mended_and_retried_as_suggested_only_these_run_and_all_is_good(broken: Broken) -> None:
    cluster, before = broken.cluster, _ran(broken.cluster)
    cluster.write("mended", "")
    suggested = re.findall(r"^(?:Next:|     ) hpcpipe (.*?)(?:   .*)?$", broken.screen, re.M)
    assert [words.split()[0] for words in suggested] == ["explain", "retry"]
    for words in suggested:
        cluster.hpcpipe(*words.split())
    report = cluster.finish()
    assert report["failures"] == []
    assert report["nodes"]["work"] == {"all": 8, "done": 8}
    again = Counter({name: len(ran) for name, ran in _ran(cluster).items()})
    again.subtract({name: len(ran) for name, ran in before.items()})
    assert +again == Counter(broken.expected.keys())
