"""What is upstream failed: only what lacks it stops, on schedulers that would start it all the same
as on those that keep it from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.dialects.pbs import STANDIN as PBS_STANDIN
from contract.harness import Cluster, tried

# The last one to end is good, and so is the first: whoever goes by one of them is misled.
FLOW = """
    import os
    import time
    from hpcpipe import Workflow, each, task

    HERE = os.path.dirname(__file__)

    def note(step, subject):
        with open(HERE + "/ran", "a") as ran:
            ran.write("%s/%d\\n" % (step, subject))
        return subject

    @task(cpus=1, memory="100M", time="5m")
    def first(subject):
        if subject == 20:
            time.sleep(2)
        if subject in (3, 11, 19):
            raise ValueError("no T1 for %d" % subject)
        return note("first", subject)

    @task(cpus=1, memory="{memory}", time="5m")
    def second(subject):
        return note("second", subject)

    wf = Workflow("twenty", base_dir="runs")
    wf.add(second, subject=wf.add(first, subject=each(range(1, 21))))
"""


# Where elements do not pair, steps that ask for the same run one after the other in an element, and
# others wait for the whole of the first.
@pytest.mark.parametrize("memory", ["100M", "120M"], ids=["alike", "unlike"])
def test_where_three_of_twenty_fail_seventeen_go_on_and_three_say_why_not(
    cluster: Cluster, memory: str
) -> None:
    seventeen_go_on(cluster, memory)


def test_so_they_do_where_a_pbs_forgets_at_once_what_has_ended(tmp_path: Path) -> None:
    """As it does by default."""
    with tried(PBS_STANDIN, tmp_path) as cluster:
        (tmp_path / "standin" / "no_history").touch()
        seventeen_go_on(cluster, "120M")


def seventeen_go_on(cluster: Cluster, memory: str) -> None:
    """Run it, and see who ran and who did not."""
    cluster.write("twenty.py", FLOW.replace("{memory}", memory))
    cluster.hpcpipe("submit", "twenty.py")
    report = cluster.finish()
    failed = (3, 11, 19)
    told = {one["task"]: (one["state"], one["reason"]) for one in report["failures"]}
    assert told == {
        **{f"first/{subject}": ("failed", "error") for subject in failed},
        **{f"second/{subject}": ("blocked", "upstream failed") for subject in failed},
    }
    assert report["nodes"]["second"] == {"all": 20, "done": 17, "blocked": 3}
    good = [subject for subject in range(1, 21) if subject not in failed]
    ran = sorted((cluster.home / "ran").read_text().split())
    assert ran == sorted(f"{step}/{subject}" for step in ("first", "second") for subject in good)
