"""What a plan is thought to come to, what that rests on, and how it is said and drawn."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import networkx
import pytest
from conftest import Golden
from fakes import Lab

import hpcpipe.planner.search.search
from hpcpipe import Workflow, each, from_networkx
from hpcpipe.errors import UsageError
from hpcpipe.run import Run, submit
from hpcpipe.site import Limits, Site
from hpcpipe.submit.options import Options
from hpcpipe.submit.prepare import Draft, draft
from hpcpipe.views.plan import plan_json, plan_lines, prediction
from hpcpipe.views.plan_svg import write_drawing
from hpcpipe.worker import outcome

HERE = Site()


def wait(seconds: float) -> float:
    """Hand a value on."""
    return seconds


def crossed() -> Workflow:
    """Make a graph that one array a level does not keep: eight and eight tasks, each of two."""
    graph = networkx.DiGraph()
    for at in range(8):
        graph.add_node(f"a{at}", seconds=1 + at, node="above")
        graph.add_node(f"b{at}", seconds=8 - at, node="below")
    for at in range(8):
        graph.add_edges_from([(f"a{at}", f"b{at}"), (f"a{at // 2}", f"b{at}")])
    return from_networkx(graph, "crossed")


def drafted(workflow: Workflow, site: Site = HERE) -> Draft:
    return draft(workflow, site)


def test_a_chain_takes_the_sum_of_its_run_times_and_an_array_what_cores_make_of_it() -> None:
    graph = networkx.DiGraph()
    for at in range(4):
        graph.add_node(f"a{at}", seconds=10, node="above")
        graph.add_node(f"b{at}", seconds=5, node="below")
        graph.add_edge(f"a{at}", f"b{at}")
    told = prediction(drafted(from_networkx(graph, "wf")), 2)
    assert (told.makespan, told.exact, told.core_seconds) == (30, 30, 60)
    assert (told.cost, told.used, told.basis) == (0, 1, "known")


@pytest.mark.parametrize(("time", "basis", "makespan"), [("2m", "asked", 240), (None, "equal", 2)])
def test_what_is_not_known_counts_as_asked_for_or_as_one_second(
    time: str | None, basis: str, makespan: float
) -> None:
    wf = Workflow("wf")
    wf.command("true {s}", s=each(range(6), axis="s"), resources={"time": time} if time else None)
    told = prediction(drafted(wf), 3)
    assert (told.basis, told.makespan) == (basis, makespan)


def test_a_label_is_thought_to_take_what_it_took_in_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCPIPE_LOCAL", str(tmp_path / "spool"))

    def nap(word: str, *seconds: float) -> Workflow:
        wf = Workflow("wf")
        wf.command(["sh", "-c", f"sleep {{s}} # {word}"], name="nap", s=each(seconds, axis="s"))
        return wf

    run: Run = submit(nap("once", 0.1, 0.9), site="local")
    run.wait(timeout=60)
    told = prediction(drafted(nap("again", 0.1, 0.9, 9)), 3)  # all with other keys
    assert told.basis == "known"
    assert 0.9 <= told.makespan < 3
    # The third label is new, and counts as the mean of the other two.
    assert 1.5 * (told.makespan + 0.1) <= told.core_seconds < 1.5 * (told.makespan + 1)


def test_a_plan_says_what_it_relaxed_and_what_that_costs(lab: Lab, golden: Golden) -> None:
    del lab  # an empty folder, and a scheduler that says nothing
    made = drafted(crossed(), Site(limits=Limits(calls=4)))
    lines = "\n".join(plan_lines(made, "because", 4)) + "\n"
    golden("plans/relaxed.txt", re.sub(r"-[0-9a-f]{8}:", "-0123abcd:", lines))
    expected = plan_json(made, 4)["expected"]
    assert expected["makespan"] >= expected["exact"] >= 72 / 4
    assert plan_json(made)["expected"] is None


def test_a_plan_tells_which_tasks_share_an_element(lab: Lab) -> None:
    lab.workflow.command("echo {n}", n=each([1, 2, 3]), name="work", resources={"pack": 2})
    [packed] = plan_json(draft(lab.workflow, lab.site))["batches"]
    assert [(task["label"], task["element"]) for task in packed["tasks"]] == [
        ("1", 0), ("2", 0), ("3", 1),
    ]  # fmt: skip


def test_a_plan_prints_what_more_calls_gain_and_takes_as_many_as_it_may(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    del lab
    monkeypatch.setattr(hpcpipe.planner.search.search, "_EFFORT_SMALL", 20_000)  # ends soon
    dice, graph = Random(0), networkx.DiGraph()
    for at in range(120):
        graph.add_node(at, seconds=dice.expovariate(1 / 60), node="task")
        if at >= 20:
            graph.add_edges_from((at - at % 20 - 1 - dice.randrange(20), at) for _ in range(3))
    flow = from_networkx(graph, "layered")
    made = draft(flow, HERE, Options(calls=6))
    lines = [*plan_lines(made, "because")]
    trade = [re.findall(r"--calls (\d+) +(\d+) calls", line) for line in lines]
    calls = [(int(most), int(count)) for found in trade for most, count in found]
    assert made.calls == 6
    assert len(calls) > 1
    assert all(count <= most for most, count in calls)
    assert draft(flow, HERE, Options(calls=calls[-1][0])).calls == calls[-1][1]


def test_the_drawing_has_a_box_a_batch_and_a_line_a_wait(tmp_path: Path) -> None:
    made = drafted(crossed())
    for name in ("plan.svg", "plan.html"):
        write_drawing(made, tmp_path / name, ["a line with <odd> & words"])
    svg = ElementTree.parse(tmp_path / "plan.svg")
    space = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f".//{space}rect")) == len(made.prepared)
    waits = sum(len(one.batch.waits) for one in made.prepared)
    assert len(svg.findall(f".//{space}path")) == waits > 0
    page = (tmp_path / "plan.html").read_text()
    assert page.count("<rect") == len(made.prepared)
    assert "a line with &lt;odd&gt; &amp; words" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere


@pytest.mark.parametrize("name", ["plan.png", "none/plan.svg"])
def test_a_drawing_that_cannot_be_made_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--draw .*{name}"):
        write_drawing(drafted(crossed()), tmp_path / name, [])
    assert not list(tmp_path.iterdir())


def test_run_times_are_read_of_packs_each_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.workflow.command("true {n}", n=each(range(12)), name="work", resources={"pack": 4})
    lab.submit()
    for n in (0, 4, 8):
        assert lab.run(f"work/{n}").status == 0
    node = Run(lab.rundir.folder).record.nodes["work"]
    listing = lab.store.has(["work"])["work"]
    walked: list[str] = []
    scan = outcome.scan_pack

    def count(path: str, since: int = 0) -> list[tuple[str, bool, int]]:
        walked.append(path)
        return scan(path, since)

    monkeypatch.setattr(outcome, "scan_pack", count)
    records = dict(lab.store.records("work", [node.key(index) for index in range(12)], listing))
    assert [one["ok"] for one in records.values()] == [1] * 12
    assert len(walked) == len({*walked}) == 3
