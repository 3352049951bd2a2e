"""Workflows from task graphs of other tools: `networkx` graphs and WfFormat files.

Tasks of the same kind, depth and resources become a node; dependencies become links between the
tasks of nodes. A graph of a million tasks thus becomes a few dozen nodes.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.graph.axes import Axis, Edge
from hpcpipe.graph.command import Command, split_words
from hpcpipe.graph.each import Each
from hpcpipe.graph.labels import label_of_id, labels_for
from hpcpipe.graph.node import Node, read_resources
from hpcpipe.graph.workflow import Workflow
from hpcpipe.resources import Resources

if TYPE_CHECKING:
    import networkx

_RESOURCES = ("cpus", "memory", "time", "gpus", "queue", "account")
_READ = ("command", "seconds", "node", *_RESOURCES)


@dataclass(frozen=True)
class _Task:
    """One task of a foreign graph: its node's name, its command and its run time."""

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
    """Return the workflow of a graph whose vertices are tasks and whose edges are dependencies.

    A vertex may have the attributes ``command`` (words, or text that is split as a shell would),
    ``seconds`` (its expected run time), ``node`` (the name of its node) and the resources of
    `task`. A task without a command sleeps for its seconds times ``scale``. Raises WorkflowError
    for a cycle, and for a vertex with neither command nor seconds. The workflow's ``tasks`` name
    the task of each vertex: ``node/label``.
    """
    import networkx

    if not graph.is_directed():
        raise WorkflowError(f"{name}: the graph is undirected; give a networkx.DiGraph")
    try:
        order = list(networkx.topological_sort(graph))
    except networkx.NetworkXUnfeasible:
        around = " → ".join(str(edge[0]) for edge in networkx.find_cycle(graph))
        raise WorkflowError(f"{name}: tasks wait for one another: {around} → …") from None
    tasks = {vertex: _read_vertex(vertex, graph.nodes[vertex], scale) for vertex in order}
    return _workflow(name, base_dir, order, tasks, {v: list(graph.pred[v]) for v in order})


def _read_vertex(vertex: Hashable, said: Mapping[str, Any], scale: float) -> _Task:
    command, seconds = said.get("command"), said.get("seconds")
    if command is None and seconds is None:
        raise WorkflowError(
            f"task {vertex!r}: has neither command= nor seconds= among its attributes "
            f"({', '.join(map(str, said)) or 'none'}; known: {', '.join(_READ)})"
        )
    seconds = float(seconds) if isinstance(seconds, Real) else seconds
    if seconds is not None and not (isinstance(seconds, float) and 0 <= seconds < 1e9):
        raise WorkflowError(f"task {vertex!r}: seconds={seconds!r} is not a duration")
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
    """Group tasks, given in topological order, into nodes linked by their dependencies."""
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
        labels = labels_for(members, label_of_id)
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
        tasks_of = zip(members, labels, strict=True)
        workflow.tasks.update((vertex, f"{node}/{label}") for vertex, label in tasks_of)
    return workflow


def _free(kind: str, taken: Mapping[str, Node]) -> str:
    """Return a node name for a kind; a number distinguishes nodes of several depths."""
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
    """Return, for each upstream node, which of its tasks each member waits for."""
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
    """Return the workflow of a WfFormat file: tasks that sleep as long as they once took.

    Run times are multiplied by ``scale``. Reads versions 1.4 and 1.5 of the schema, in which
    WfCommons publishes real workflows (https://github.com/wfcommons/WfFormat). Raises UsageError
    for any other file.
    """
    import networkx

    path = Path(file)
    try:
        data = json.loads(path.read_text("utf-8"))
        tasks = _wfformat_tasks(data["workflow"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: not a readable WfFormat file: {type(error).__name__}: {error}"
        ) from error
    graph = networkx.DiGraph()
    for task, (said, above) in tasks.items():
        graph.add_node(task, **said)
        graph.add_edges_from((parent, task) for parent in above)
    called = name or re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem.partition(".")[0])
    return from_networkx(graph, called, base_dir=base_dir, scale=scale)


def _wfformat_tasks(workflow: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return every task with its attributes, as `from_networkx` takes them, and its parents.

    Version 1.5 separates the execution from the specification; 1.4 has both in one table.
    """
    specified = workflow.get("specification", workflow)["tasks"]
    executed = workflow.get("execution", workflow)["tasks"]
    ran = {_key(task): task for task in executed}
    tasks: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for task in specified:
        key = _key(task)
        facts = ran.get(key, {})
        said = {
            "node": task.get("category") or re.sub(r"[_-]?(ID)?\d+$", "", task["name"]),
            "seconds": float(facts.get("runtimeInSeconds", facts.get("runtime", 0))),
            "cpus": max(1, round(facts.get("coreCount") or facts.get("cores") or 1)),
        }
        if key in tasks:
            raise UsageError(f"two tasks have the id {key!r}")
        tasks[key] = said, []
    by_name = {str(task["name"]): _key(task) for task in specified}

    def known(task: str, other: object) -> str:
        found = str(other) if str(other) in tasks else by_name.get(str(other))
        if found is None:
            raise UsageError(f"task {task!r} refers to {str(other)!r}: no such task")
        return found

    for task in specified:
        key = _key(task)
        tasks[key][1].extend(known(key, parent) for parent in task.get("parents", ()))
        for child in task.get("children", ()):
            tasks[known(key, child)][1].append(key)
    return tasks


def _key(task: Mapping[str, Any]) -> str:
    """Return a task's id, or in version 1.4, where it need not have one, its name."""
    return str(task["id"] if "id" in task else task["name"])
