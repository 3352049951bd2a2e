"""What must run: every task's key, and which tasks are done, in flight, or to run.

A key is the hash of all that determines a task's result, Merkle-style: its code, its literal
inputs, its input files, its place along its axes, the versions of software it demands, and the keys
of the tasks upstream. Resources never enter it. Everything is in columns, one entry a task, so that
a million tasks stay cheap.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hpcpipe.axes import Edge, make_edge
from hpcpipe.command import Command
from hpcpipe.digest import Digests
from hpcpipe.errors import WorkflowError
from hpcpipe.files import SIZE, Files, combine
from hpcpipe.functions import Own, check_callable
from hpcpipe.mapped import Each
from hpcpipe.model import Resources
from hpcpipe.node import Node, Output, references
from hpcpipe.workflow import Workflow

RUN, DONE, IN_FLIGHT = range(3)


@dataclass(frozen=True)
class InFlight:
    """A task of an earlier submission that may still end well: its batch, job and array index.

    ``pack`` is where its outcome will be, if it is one of several tasks of an element.
    """

    batch: str
    job: str
    index: int | None
    pack: str | None = None


@dataclass(frozen=True, eq=False)
class NodePlan:
    """One node's columns: ``keys`` (16 bytes a task), ``fates`` (one of RUN, DONE, IN_FLIGHT)."""

    node: Node
    keys: bytes
    edges: tuple[Edge, ...]
    fates: bytes
    in_flight: Mapping[int, InFlight] = field(default_factory=dict)
    raised: Mapping[int, Resources] = field(default_factory=dict)

    def key(self, index: int) -> str:
        """Spell one task's key, as its files are named."""
        return self.keys[index * SIZE : index * SIZE + SIZE].hex()

    @property
    def to_run(self) -> Sequence[int]:
        """Flat indices of the tasks to run."""
        if not any(self.fates):  # RUN is 0
            return range(len(self.fates))
        return array("q", [index for index, fate in enumerate(self.fates) if fate == RUN])


@dataclass(frozen=True, eq=False)
class Plan:
    """The frozen answer to "what must run", and why the rest need not."""

    workflow: Workflow
    own: Own
    nodes: Mapping[str, NodePlan]
    resources: Resources = field(default_factory=Resources)  # laid over every node's, as by --time
    file_digests: dict[str, Any] = field(default_factory=dict)  # to be remembered

    def count(self, fate: int) -> int:
        """Count the tasks of one fate."""
        return sum(node.fates.count(fate) for node in self.nodes.values())

    @property
    def irregular(self) -> bool:
        """Tell whether some tasks wait for others in a way that no mapping over axes says."""
        return any(edge.starts for node in self.nodes.values() for edge in node.edges)

    def asked(self, node: NodePlan, index: int | None = None) -> Resources:
        """Say what a task asks for: its node's resources, those of this plan, what was raised."""
        asked = node.node.resources
        if index is not None and index in node.raised:
            asked = asked.at_least(node.raised[index])
        return self.resources.over(asked)


@dataclass(frozen=True)
class Known:
    """What is on disk and in flight of one node: good keys, and in-flight tasks by key.

    ``stuck`` are elements in the queue that can never start.
    """

    good: Collection[str] = ()
    in_flight: Mapping[str, InFlight] = field(default_factory=dict)
    raised: Mapping[str, Resources] = field(default_factory=dict)
    stuck: Sequence[str] = ()


def make_plan(
    workflow: Workflow,
    known: Mapping[str, Known] | None = None,
    files: Files | None = None,
    resources: Resources | None = None,
) -> Plan:
    """Work out every task's key and fate. Starts nothing and writes nothing.

    Raises WorkflowError for an empty workflow, code that cannot travel, values that have no key.
    """
    if not workflow.nodes:
        raise WorkflowError(f"workflow {workflow.name!r} has no nodes; add some with wf.add(…)")
    own = Own(Path(workflow.source).parent if workflow.source else Path.cwd())
    digests = Digests(files or Files(workflow.files), own)
    nodes: dict[str, NodePlan] = {}
    for node in workflow.nodes.values():  # in the order added, which is upstream first
        if not isinstance(node.call, Command):
            check_callable(node.call, own)
        edges = tuple(
            make_edge(node.axes, output.node.name, output.node.axes, output.gathered)
            for output in node.upstreams
        ) + tuple(node.links)
        asked = (resources or Resources()).over(node.resources)
        keys = _keys(node, asked, edges, nodes, digests)
        nodes[node.name] = _with_fates(node, keys, edges, (known or {}).get(node.name, Known()))
    return Plan(workflow, own, nodes, resources or Resources(), digests.files.known)


def is_static(node: Node) -> bool:
    """Tell whether a command's words are known before anything runs, so that sh can run it."""
    return isinstance(node.call, Command) and all(
        is_static(output.node) for output in node.upstreams if output not in node.after
    )


def _with_fates(node: Node, keys: bytes, edges: tuple[Edge, ...], known: Known) -> NodePlan:
    fates = bytearray(node.size)
    in_flight: dict[int, InFlight] = {}
    raised: dict[int, Resources] = {}
    if known.good or known.in_flight or known.raised:
        for index in range(node.size):
            key = keys[index * SIZE : index * SIZE + SIZE].hex()
            if key in known.good:
                fates[index] = DONE
            elif key in known.in_flight:
                fates[index] = IN_FLIGHT
                in_flight[index] = known.in_flight[key]
            elif key in known.raised:
                raised[index] = known.raised[key]
    return NodePlan(node, keys, edges, bytes(fates), in_flight, raised)


def _keys(
    node: Node,
    asked: Resources,
    edges: Sequence[Edge],
    upstream: Mapping[str, NodePlan],
    digests: Digests,
) -> bytes:
    start = blake2b(_node_digest(node, asked, digests), digest_size=SIZE)
    columns = _axis_columns(node, digests)
    parents = [(edge, upstream[edge.upstream].keys) for edge in edges]
    keys = bytearray()
    for index, place in enumerate(_places(columns)):
        state = start.copy()
        state.update(place)
        for edge, above in parents:
            for parent in edge.parents(index):
                state.update(above[parent * SIZE : parent * SIZE + SIZE])
        keys += state.digest()
    return bytes(keys)


def _node_digest(node: Node, asked: Resources, digests: Digests) -> bytes:
    """Digest what all tasks of a node share: its name, code and fixed inputs.

    Of the software, the versions that are demanded, for they say which results will do; not the
    one that a site has, or the same workflow would be another one on another cluster.
    """
    counter = iter(range(len(node.upstreams)))
    axes = [axis.name for axis in node.axes]
    inputs = []
    for name, value in node.arguments.items():
        if isinstance(value, Each):
            assert value.axis is not None
            shared: Any = ("each", axes.index(value.axis.name))
        else:
            shared = _skeleton(file_like(node, name, value), counter)
        inputs.append(name.encode() + b"=" + _digest(node, name, shared, digests))
    # Which inputs each upstream key stands for must count too: names and selected parts.
    shape = [(o.node.name, list(o.select), list(o.gathered)) for o in node.upstreams]
    parts = [digests.digest(node.name), *sorted(inputs), digests.digest(shape)]
    if versions := sorted(one for one in asked.software or () if re.search(r"[<>=]", one)):
        parts.append(digests.digest(("software", *versions)))
    if isinstance(node.call, Command):
        parts.append(digests.digest((node.call.words, node.call.outputs)))
        # An edited script is another command; a program found by PATH counts by its name.
        parts += [
            digests.digest(Path(word))
            for word in (*node.call.words[:1] * ("/" in node.call.words[0]), *node.call.words[1:])
            if os.path.isfile(word)
        ]
    else:
        parts.append(digests.digest(node.call))
    return combine(*parts)


def _digest(node: Node, argument: str, value: Any, digests: Digests) -> bytes:
    try:
        return digests.digest(value)
    except WorkflowError as error:
        raise WorkflowError(f"{node.name}: {argument}: {error}") from error


def file_like(node: Node, name: str, value: Any) -> Any:
    """Read a string as the file it names, where files are what the input is about.

    So for a command's words that name a file, and for a function's parameters annotated `Path`.
    """
    if isinstance(value, list) and isinstance(node.call, Command):
        return [file_like(node, name, item) for item in value]
    if isinstance(value, str):
        if isinstance(node.call, Command):
            return Path(value) if value and os.path.isfile(value) else value
        hint = getattr(node.call, "__annotations__", {}).get(name)
        if hint is Path or hint in ("Path", "pathlib.Path"):
            return Path(value)
    return value


def _skeleton(value: Any, counter: Any) -> Any:
    """Replace the outputs within a value by their positions; what has none stays as it is."""
    if isinstance(value, Output):
        return ("upstream", next(counter))
    if not any(references([value])):
        return value
    if isinstance(value, dict):
        return {key: _skeleton(item, counter) for key, item in value.items()}
    return (type(value).__name__, [_skeleton(item, counter) for item in value])


def _axis_columns(node: Node, digests: Digests) -> list[list[bytes]]:
    """For every axis and place, the bytes it adds to a key: its label and its values there."""
    columns = []
    for axis in node.axes:
        column = [label.encode() + b"\0" for label in axis.labels]
        for name, value in sorted(node.arguments.items()):
            if isinstance(value, Each) and value.axis is not None and value.axis.name == axis.name:
                for place, item in enumerate(value.values):
                    column[place] += _digest(node, name, file_like(node, name, item), digests)
        columns.append(column)
    return columns


def _places(columns: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    joined: Sequence[bytes] = [b""]
    for column in columns:
        joined = [before + here for before in joined for here in column]
    return joined
