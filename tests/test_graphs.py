"""Graphs that something else made, as workflows: nodes, links, labels, run times, mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import networkx
import pytest

from hpcpipe import Workflow, from_networkx, from_wfformat
from hpcpipe.axes import label
from hpcpipe.command import Command
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.plan import Plan, make_plan
from hpcpipe.run import Run, submit


def edges(plan: Plan) -> Iterator[tuple[str, str]]:
    """Give every pair of tasks, of which the second waits for the first."""
    for node in plan.nodes.values():
        for edge in node.edges:
            above = plan.nodes[edge.upstream].node
            for task in range(len(node.fates)):
                for parent in edge.parents(task):
                    yield label(above.axes, parent), label(node.node.axes, task)


def words(workflow: Workflow) -> Mapping[str, list[str]]:
    found = {}
    for node in workflow.nodes.values():
        assert isinstance(node.call, Command)
        for at, value in enumerate(node.arguments["words"].values):
            found[label(node.axes, at)] = node.call.argv({"words": value}, "")
    return found


def graph(**attributes: Mapping[str, Any]) -> networkx.DiGraph:
    made = networkx.DiGraph()
    for name, said in attributes.items():
        made.add_node(name, **said)
    return made


def test_tasks_of_one_kind_and_depth_are_a_node_and_its_edges_are_kept() -> None:
    made = networkx.DiGraph()
    for one in "abcdef":
        made.add_node(one, seconds=1, node="step")
    pairs = {("a", "c"), ("b", "c"), ("b", "d"), ("c", "e"), ("d", "e"), ("a", "e")}
    made.add_edges_from(pairs)
    workflow = from_networkx(made, "wf")
    sizes = {name: node.size for name, node in workflow.nodes.items()}
    assert sizes == {"step": 3, "step-2": 2, "step-3": 1}  # f needs nothing: as deep as a and b
    assert set(edges(make_plan(workflow))) == pairs


def test_an_edge_that_pairs_all_tasks_is_regular() -> None:
    made = networkx.DiGraph()
    for one in range(3):
        made.add_node(f"a{one}", seconds=1, node="a")
        made.add_node(f"b{one}", seconds=1, node="b")
        made.add_edge(f"a{one}", f"b{one}")
    assert not make_plan(from_networkx(made, "wf")).irregular


def test_a_task_is_its_command_or_sleeps_as_long_as_it_would_take() -> None:
    made = graph(
        sleeps={"seconds": 90},
        split={"command": "cp 'my file' {}", "seconds": 3},
        listed={"command": ["echo", "a b", Path("/tmp")]},
    )
    workflow = from_networkx(made, "wf", scale=0.01)
    assert words(workflow) == {
        "sleeps": ["sleep", "0.900"],
        "split": ["cp", "my file", "{}"],
        "listed": ["echo", "a b", "/tmp"],
    }
    assert {name: node.seconds for name, node in workflow.nodes.items()} == {
        "task": [0.9],
        "cp": [3],
        "echo": None,
    }


def test_what_a_task_asks_for_parts_it_from_others() -> None:
    made = graph(a={"seconds": 1, "memory": "2G"}, b={"seconds": 1}, c={"seconds": 1})
    workflow = from_networkx(made, "wf")
    assert [(node.size, node.resources.memory) for node in workflow.nodes.values()] == [
        (1, 2048),
        (2, None),
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, r"task 'a': neither command= nor seconds= is among its attributes \(it has none"),
        ({"second": 1}, r"\(second; read are command, seconds"),
        ({"seconds": -1}, r"task 'a': seconds=-1 is no length of time"),
        ({"seconds": "1"}, r"task 'a': seconds='1' is no length of time"),
        ({"command": ""}, r"task 'a': its command has no words"),
        ({"command": "a | b"}, r"no shell runs it"),
        ({"seconds": 1, "memory": "much"}, r"task 'a': memory 'much' is not an amount"),
    ],
)
def test_a_vertex_that_is_no_task_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkflowError, match=words):
        from_networkx(graph(a=said), "wf")


def test_a_cycle_is_told_by_its_tasks() -> None:
    made = graph(a={"seconds": 1}, b={"seconds": 1})
    made.add_edges_from([("a", "b"), ("b", "a")])
    with pytest.raises(WorkflowError, match="tasks wait for one another: a → b → …"):
        from_networkx(made, "wf")
    with pytest.raises(WorkflowError, match="no directions"):
        from_networkx(networkx.Graph(), "wf")


V14 = {
    "workflow": {
        "tasks": [
            {"name": "split_ID01", "runtime": 2, "cores": 2, "parents": []},
            {"name": "work_ID02", "runtime": 3.5, "parents": ["split_ID01"]},
            {"name": "work_ID03", "runtime": 4, "parents": ["split_ID01"]},
        ]
    }
}
V15 = {
    "workflow": {
        "specification": {
            "tasks": [
                {"name": "split", "id": "split_01", "parents": [], "children": ["work_02"]},
                {"name": "work", "id": "work_02", "parents": ["split_01"], "children": []},
                {"name": "work", "id": "work_03", "parents": ["split_01"], "children": []},
            ]
        },
        "execution": {
            "tasks": [
                {"id": "split_01", "runtimeInSeconds": 2, "coreCount": 2},
                {"id": "work_02", "runtimeInSeconds": 3.5},
                {"id": "work_03", "runtimeInSeconds": 4},
            ]
        },
    }
}


@pytest.mark.parametrize("data", [V14, V15], ids=["1.4", "1.5"])
def test_wfformat_is_read_in_both_its_versions(data: Any, tmp_path: Path) -> None:
    file = tmp_path / "a study.json"
    file.write_text(json.dumps(data))
    workflow = from_wfformat(file, scale=0.5)
    assert workflow.name == "a_study"
    assert {name: node.seconds for name, node in workflow.nodes.items()} == {
        "split": [1.0],
        "work": [1.75, 2.0],
    }
    assert workflow.nodes["split"].resources.cpus == 2
    assert [parent for parent, _ in edges(make_plan(workflow))] == [
        label(workflow.nodes["split"].axes, 0)
    ] * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("[1", "no WfFormat that can be read: JSONDecodeError"),
        ("{}", "no WfFormat that can be read: KeyError: 'workflow'"),
        ('{"workflow": {"tasks": [{"name": "a", "parents": ["b"]}]}}', "'a' waits for 'b'"),
    ],
)
def test_a_file_that_is_no_wfformat_is_told(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "wf.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=words):
        from_wfformat(file)


def test_a_foreign_graph_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCPIPE_LOCAL", str(tmp_path / "spool"))
    made = networkx.DiGraph()
    for one in range(4):
        made.add_node(one, command=["sh", "-c", f"[ {one} -lt 2 ] || cat {one % 2}; echo >{one}"])
    made.add_edges_from([(0, 2), (1, 3), (0, 3)])
    run: Run = submit(from_networkx(made, "wf"), site="local")
    run.wait(timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == list("0123")
