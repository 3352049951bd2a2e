"""A plan stands alone: with the workflow's file deleted, from anywhere, `hpcpipe retry` goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contract.harness import Cluster

# Commands that use one another's files, and Python tasks that use one another's values. Its
# arguments are its own; of each kind one fails until there is a file `mended`.
FLOW = """
    import argparse
    import os
    from hpcpipe import Workflow, each

    HERE = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("subjects", nargs="+")
    subjects = each(parser.parse_args().subjects)

    def measure(subject):
        if subject == "S2" and not os.path.exists(os.path.join(HERE, "mended")):
            raise ValueError("not yet")
        return len(subject)

    def add(sizes):
        return sum(sizes)

    wf = Workflow("study", base_dir="work")
    small = dict(time="5m", memory="100M", cpus=1)
    script = '[ {subject} != S2 ] || [ -e "$0/mended" ] || exit 3; echo {subject} >{output}'
    made = wf.command(["sh", "-c", script, HERE], name="make", outputs="made.txt",
                      resources=small, subject=subjects)
    wf.command("cat {files}", name="join", files=made.gather(), resources=small)
    sizes = wf.add(measure, subject=subjects)
    wf.add(add, sizes=sizes.gather())
"""


@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
def test_what_failed_is_repaired_wholly_without_the_file(cluster: Cluster, moved: bool) -> None:
    if moved:  # commands that make files name them where they were, Python tasks do not
        text = FLOW[: FLOW.index("    made =")] + FLOW[FLOW.index("    sizes = wf.add") :]
    else:
        text = FLOW
    file = cluster.write("flow.py", text)
    cluster.hpcpipe("submit", "flow.py", "S1", "S2", "S3", "--time", "6m")
    failed = {one["task"] for one in cluster.finish()["failures"]}
    assert failed == {"measure/S2", "add"} | (set() if moved else {"make/S2", "join"})
    cluster.write("mended", "")
    file.unlink()
    run = cluster.home / "work" / "study"
    if moved:
        run = run.parent.rename(cluster.home / "kept") / "study"
    where = ("--run", str(run))
    said = cluster.hpcpipe("retry", *where, cwd=Path("/")).stdout
    assert f"{2 if moved else 4} tasks to run" in said
    assert "6 min" in said  # as submitted
    report = cluster.finish(*where, cwd=Path("/"))
    assert (report["failures"], report["finished"]) == ([], True)
    made = cluster.hpcpipe("results", "add", "--json", *where, cwd=Path("/")).stdout
    assert json.loads(made) == {"": 6}
    if not moved:
        log = cluster.hpcpipe("logs", "join", *where, cwd=Path("/")).stdout
        assert log.split() == ["S1", "S2", "S3"]
