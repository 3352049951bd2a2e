"""Of the many elements of an array, the one that is meant: told, cancelled, and no other."""

from __future__ import annotations

import pytest

from contract.harness import Cluster, until
from hpcpipe.quantities import parse_time

WORKFLOW = """
    import os

    from hpcpipe import Workflow, each

    HERE = os.path.dirname(__file__)
    wf = Workflow("which", base_dir="runs")
    wf.command(
        ["sh", HERE + "/tool.sh", "{{nth}}"], name="it", nth=each(range({count})),
        resources=dict(cpus=1, memory="100M", time="{time}", queue="long"),
    )
"""
TOOL = """
    cd "$(dirname "$0")"
    echo "$1" $({element}) >>ran
    case $1 in
      {cancelled} | {late}) sleep 600 ;;
      {killed}) kill -KILL $$ ;;
    esac
"""


@pytest.mark.can("arrays", "short_time")
def test_the_element_that_is_cancelled_too_slow_or_killed_is_told_and_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = cluster.dialect
    monkeypatch.setenv("STANDIN_MINUTE", "20")  # of the one for LSF, in seconds
    # One is cancelled meanwhile, which takes a while on a busy machine.
    time = f"{max(parse_time(dialect.short_time), 20)}s"
    count = int(200 / dialect.slow)
    cancelled, late, killed = count // 5, count // 2, count * 4 // 5
    cluster.write("which.py", WORKFLOW.format(count=count, time=time))
    which = {"cancelled": cancelled, "late": late, "killed": killed}
    cluster.write("tool.sh", TOOL.format(element=dialect.element, **which))
    ran = cluster.home / "ran"

    def elements() -> dict[str, str]:
        lines = ran.read_text().splitlines() if ran.exists() else []
        return dict(line.split() for line in lines)

    cluster.hpcpipe("submit", "which.py")
    until(lambda: str(cancelled) in elements(), seconds=240)
    cluster.hpcpipe("cancel", f"it/{cancelled}")
    report = cluster.finish(seconds=300)
    told = {one["task"]: (one["reason"], one["job_id"]) for one in report["failures"]}
    began = elements()
    assert told == {
        f"it/{cancelled}": ("cancelled", began[str(cancelled)]),
        f"it/{late}": ("time limit", began[str(late)]),
        f"it/{killed}": ("signal", began[str(killed)]),
    }
    assert sorted(map(int, began)) == [*range(count)]
    assert len(ran.read_text().splitlines()) == len({*began.values()}) == count
