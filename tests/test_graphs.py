"""Graphs that something else made, as workflows: nodes, links, labels, run times, mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import networkx
import numpy
import pytest

from hpcpipe import Workflow, from_networkx, from_wfformat
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.graph.axes import label
from hpcpipe.graph.command import Command
from hpcpipe.keys.plan import Plan, make_plan
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
        ({}, r"task 'a': has neither command= nor seconds= among its attributes \(none"),
        ({"second": 1}, r"\(second; known: command, seconds"),
        ({"seconds": -1}, r"task 'a': seconds=-1.0 is not a duration"),
        ({"seconds": "1"}, r"task 'a': seconds='1' is not a duration"),
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
    with pytest.raises(WorkflowError, match="a → b → …"):
        from_networkx(networkx.MultiDiGraph(made), "wf")
    with pytest.raises(WorkflowError, match="is undirected"):
        from_networkx(networkx.Graph(), "wf")


LONG = "NFCORE_RNASEQ.FASTQ_QC_TRIM_FILTER_SETSTRANDEDNESS.FASTQ_FASTQC_UMITOOLS_TRIMGALORE"


@pytest.mark.parametrize(
    ("vertices", "labels"),
    [
        (["align.s1", "align.s2", "job.v1"], ("align.s1", "align.s2", "job.v1")),
        (["sub-01/anat", "sub-02/anat"], ("sub-01_anat", "sub-02_anat")),
        (
            [f"{LONG}.A_0001", f"{LONG}.B_0001"],
            ("ASTQC_UMITOOLS_TRIMGALORE.A_0001-ff916c", "ASTQC_UMITOOLS_TRIMGALORE.B_0001-a858c6"),
        ),
        ([("sub-01", 1), ("sub-02", 1)], ("sub-01_1", "sub-02_1")),
        ([1, "1"], ("1-5f536b", "1-5e103c")),
    ],
)
def test_a_task_is_named_by_all_of_its_id_and_found_by_its_vertex(
    vertices: list[Any], labels: tuple[str, ...]
) -> None:
    made = networkx.DiGraph()
    made.add_nodes_from((vertex, {"seconds": 1}) for vertex in vertices)
    workflow = from_networkx(made, "wf")
    assert workflow.nodes["task"].axes[0].labels == labels
    assert workflow.tasks == {
        vertex: f"task/{label}" for vertex, label in zip(vertices, labels, strict=True)
    }


def test_the_seconds_of_a_task_may_be_any_number() -> None:
    made = graph(a={"seconds": numpy.int64(2)}, b={"seconds": Fraction(1, 2)})
    assert from_networkx(made, "wf").nodes["task"].seconds == [2.0, 0.5]


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
    ("first", "second"),
    [
        ({"name": "a", "children": ["b"]}, {"name": "b"}),
        ({"name": "a", "id": "ID1", "children": ["b"]}, {"name": "b", "id": "ID2"}),
        ({"name": "a", "id": "ID1"}, {"name": "b", "id": "ID2", "parents": ["a"]}),
    ],
    ids=["children only", "children by name", "parents by name"],
)
def test_dependencies_are_read_however_they_are_given(
    first: Any, second: Any, tmp_path: Path
) -> None:
    file = tmp_path / "wf.json"
    file.write_text(json.dumps({"workflow": {"tasks": [first, second]}}))
    workflow = from_wfformat(file)
    assert [len(node.links) for node in workflow.nodes.values()] == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("[1", "not a readable WfFormat file: JSONDecodeError"),
        ("{}", "not a readable WfFormat file: KeyError: 'workflow'"),
        ('{"workflow": {"tasks": [{"name": "a", "parents": ["b"]}]}}', "'a' refers to 'b'"),
        ('{"workflow": {"tasks": [{"name": "a"}, {"name": "a"}]}}', "two tasks have the id 'a'"),
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
