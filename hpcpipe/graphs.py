"""Workflows from graphs of tasks that something else made: `networkx` graphs, and WfFormat files.

Tasks of one kind and one depth, which ask for the same, become a node; what they wait for becomes
links between the tasks of nodes. So a graph of a million tasks is some tens of nodes here as well.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.axes import Axis, Edge
from hpcpipe.command import Command, split_words
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.labels import labels_for
from hpcpipe.mapped import Each
from hpcpipe.model import Resources
from hpcpipe.node import Node, read_resources
from hpcpipe.workflow import Workflow

if TYPE_CHECKING:
    import networkx

_RESOURCES = ("cpus", "memory", "time", "gpus", "queue", "account")
_READ = ("command", "seconds", "node", *_RESOURCES)


@dataclass(frozen=True)
class _Task:
    """One task of a foreign graph: which node it is to be in, its words, how long it takes."""

    kind: str
    words: Sequence[str]
    seconds: float | None
    resources: Resources


def from_networkx(
    graph: networkx.DiGraph,
    name: str,
    *,
    base_dir: str | os.PathLike[str] = ".",
    scale: float = 1.0,
) -> Workflow:
    """Make a workflow of a graph whose vertices are tasks, and whose edges say what waits for what.

    A vertex may have the attributes ``command`` (words, or text that is split as a shell would),
    ``seconds`` (how long it is thought to take), ``node`` (the name of the node it is to be in)
    and the resources of `task`. One without a command sleeps for its seconds times ``scale``.
    Raises WorkflowError for a cycle, and for a vertex with neither command nor seconds.
    """
    import networkx

    if not graph.is_directed():
        raise WorkflowError(f"{name}: the graph has no directions; give a networkx.DiGraph")
    try:
        order = list(networkx.topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        around = " → ".join(str(vertex) for vertex, _ in networkx.find_cycle(graph))
        raise WorkflowError(f"{name}: tasks wait for one another: {around} → …") from None
    tasks = {vertex: _read_vertex(vertex, graph.nodes[vertex], scale) for vertex in order}
    return _workflow(name, base_dir, order, tasks, {v: list(graph.pred[v]) for v in order})


def _read_vertex(vertex: Hashable, said: Mapping[str, Any], scale: float) -> _Task:
    command, seconds = said.get("command"), said.get("seconds")
    if command is None and seconds is None:
        raise WorkflowError(
            f"task {vertex!r}: neither command= nor seconds= is among its attributes "
            f"({', '.join(map(str, said)) or 'it has none'}; read are {', '.join(_READ)})"
        )
    if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < 1e9):
        raise WorkflowError(f"task {vertex!r}: seconds={seconds!r} is no length of time")
    if command is None:
        seconds = (seconds or 0) * scale
        command, kind = ("sleep", f"{seconds:.3f}"), "task"
    else:
        kind = Path(_words(vertex, command)[0]).stem
    asked = {key: said[key] for key in _RESOURCES if said.get(key) is not None}
    resources = read_resources(asked, f"task {vertex!r}")
    return _Task(str(said.get("node") or kind), _words(vertex, command), seconds, resources)


def _words(vertex: Hashable, command: str | Sequence[str]) -> tuple[str, ...]:
    words = split_words(command) if isinstance(command, str) else map(os.fspath, command)
    if not (found := tuple(words)):
        raise WorkflowError(f"task {vertex!r}: its command has no words")
    return found


def _workflow(
    name: str,
    base_dir: str | os.PathLike[str],
    order: Iterable[Hashable],
    tasks: Mapping[Hashable, _Task],
    parents: Mapping[Hashable, Sequence[Hashable]],
) -> Workflow:
    """Group tasks, given upstream ones first, into nodes, and say which waits for which."""
    depth: dict[Hashable, int] = {}
    groups: dict[tuple[int, str, Resources], list[Hashable]] = {}
    for vertex in order:
        depth[vertex] = max((depth[parent] + 1 for parent in parents[vertex]), default=0)
        task = tasks[vertex]
        groups.setdefault((depth[vertex], task.kind, task.resources), []).append(vertex)
    workflow = Workflow(name, base_dir)
    place: dict[Hashable, tuple[str, int]] = {}
    for (_, kind, resources), members in sorted(groups.items(), key=lambda group: group[0][0]):
        node = _free(kind, workflow.nodes)
        labels = labels_for([str(vertex) for vertex in members])
        axis = Axis("task", labels)
        words = Each([list(tasks[vertex].words) for vertex in members], axis, labels)
        seconds = [tasks[vertex].seconds for vertex in members]
        workflow.nodes[node] = Node(
            node,
            Command(("{words}",)),
            {"words": words},
            (axis,),
            resources,
            folder=False,
            links=tuple(_links(members, parents, place)),
            seconds=None if None in seconds else seconds,  # type: ignore[arg-type]
        )
        place.update((vertex, (node, at)) for at, vertex in enumerate(members))
    return workflow


def _free(kind: str, taken: Mapping[str, Node]) -> str:
    """Make a node's name of a kind; a number tells apart those of several depths."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "_", kind)[:56]
    base = cleaned if re.match(r"[A-Za-z_]", cleaned) else f"_{cleaned}"
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _links(
    members: Sequence[Hashable],
    parents: Mapping[Hashable, Sequence[Hashable]],
    place: Mapping[Hashable, tuple[str, int]],
) -> Iterable[Edge]:
    """Say, for every node above, which of its tasks each member waits for."""
    columns: dict[str, tuple[array[int], array[int]]] = {}
    for at, vertex in enumerate(members):
        for node, index in sorted({place[parent] for parent in parents[vertex]}):
            base, whose = columns.setdefault(node, (array("q"), array("q")))
            base.append(index)
            whose.append(at)
    for node, (base, whose) in columns.items():
        if list(whose) == list(range(len(members))):
            yield Edge(node, base)
            continue
        starts = array("q", [0]) * (len(members) + 1)
        for at in whose:
            starts[at + 1] += 1
        for at in range(len(members)):
            starts[at + 1] += starts[at]
        yield Edge(node, base, starts=starts)


def from_wfformat(
    file: str | os.PathLike[str],
    *,
    name: str | None = None,
    base_dir: str | os.PathLike[str] = ".",
    scale: float = 1.0,
) -> Workflow:
    """Make a workflow of a WfFormat file: tasks that sleep as long as they once took.

    Run times are multiplied by ``scale``. Reads the schema's versions 1.4 and 1.5, in which
    WfCommons publishes real workflows (https://github.com/wfcommons/WfFormat). Raises UsageError
    for a file that is none of these.
    """
    import networkx

    path = Path(file)
    try:
        data = json.loads(path.read_text("utf-8"))
        tasks = _wfformat_tasks(data["workflow"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: no WfFormat that can be read: {type(error).__name__}: {error}"
        ) from error
    graph = networkx.DiGraph()
    for task, (said, above) in tasks.items():
        graph.add_node(task, **said)
        for parent in above:
            if parent not in tasks:
                raise UsageError(f"{path}: task {task!r} waits for {parent!r}, which is not there")
            graph.add_edge(parent, task)
    called = name or re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem.partition(".")[0])
    return from_networkx(graph, called, base_dir=base_dir, scale=scale)


def _wfformat_tasks(workflow: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Read every task: its attributes as `from_networkx` takes them, and its parents.

    Version 1.5 keeps what ran apart from what was to run; 1.4 has both in one table.
    """
    specified = workflow.get("specification", workflow)["tasks"]
    executed = workflow.get("execution", workflow)["tasks"]
    ran = {_key(task): task for task in executed}
    tasks = {}
    for task in specified:
        key = _key(task)
        facts = ran.get(key, {})
        said = {
            "node": task.get("category") or re.sub(r"[_-]?(ID)?\d+$", "", task["name"]),
            "seconds": float(facts.get("runtimeInSeconds", facts.get("runtime", 0))),
            "cpus": max(1, round(facts.get("coreCount") or facts.get("cores") or 1)),
        }
        tasks[key] = said, [str(parent) for parent in task.get("parents", ())]
    return tasks


def _key(task: Mapping[str, Any]) -> str:
    """Give what others call a task by: its id, or in version 1.4 its name."""
    return str(task["id"] if "id" in task else task["name"])
