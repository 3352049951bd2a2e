"""What must run: every task's key, and which tasks are done, in flight, or to run.

`freeze` makes a plan of a workflow, and is the last to see the user's code; `find_fates` decides
what of a plan is to run, and needs nothing but the run's folder.

A key is the hash of all that determines a task's result, Merkle-style: its code, its literal
inputs, its input files, the versions of software it demands, and the keys of the tasks upstream;
the name of its working folder if it has one. Resources never enter it, nor what other tasks are
like. Everything is in columns, one entry a task, so that a million tasks stay cheap.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.graph.axes import Edge, make_edge
from hpcpipe.graph.command import Command
from hpcpipe.graph.each import Each
from hpcpipe.graph.labels import label_of, long_label
from hpcpipe.graph.node import Node, Output, leaves, references
from hpcpipe.graph.workflow import Workflow
from hpcpipe.keys.digest import PLAIN, Digests, files_of
from hpcpipe.keys.fates import RUN, Columns, InFlight, Known, decide
from hpcpipe.keys.file_digest import Files, Traced, combine, make_again, recipe
from hpcpipe.keys.grow import make_growth, refresh_growth
from hpcpipe.keys.make_keys import make_keys, places_of
from hpcpipe.keys.payloads import Writer
from hpcpipe.keys.pickling import Own, check_callable
from hpcpipe.keys.words import files_of_words, uncounted
from hpcpipe.resources import Resources
from hpcpipe.store.plan import UNCOUNTED, Frozen, NodeRecord

_SHOWN = 8  # bytes of digests that are kept to be shown and compared


@dataclass(frozen=True, eq=False)
class NodePlan:
    """A frozen node with the fates of its tasks, see `hpcpipe.keys.fates`."""

    node: NodeRecord
    fates: bytes
    in_flight: Mapping[int, InFlight] = field(default_factory=dict)
    raised: Mapping[int, Resources] = field(default_factory=dict)

    @property
    def keys(self) -> bytes:
        """The tasks' keys, 16 bytes each."""
        return self.node.keys

    @property
    def edges(self) -> tuple[Edge, ...]:
        """What its tasks wait for."""
        return self.node.edges

    def key(self, index: int) -> str:
        """Return one task's key, as its files are named."""
        return self.node.key(index)

    @property
    def to_run(self) -> Sequence[int]:
        """Flat indices of the tasks to run."""
        if not any(self.fates):  # RUN is 0
            return range(len(self.fates))
        return array("q", [index for index, fate in enumerate(self.fates) if fate == RUN])


@dataclass(frozen=True, eq=False)
class Plan:
    """The frozen answer to "what must run", and why the rest need not."""

    frozen: Frozen
    nodes: Mapping[str, NodePlan]
    resources: Resources = field(default_factory=Resources)  # laid over every node's, as by --time
    kept: Resources = field(default_factory=Resources)  # by what is retried
    replaced: frozenset[Hashable] = frozenset()  # elements in the queue whose tasks run again

    def count(self, fate: int) -> int:
        """Count the tasks of one fate."""
        return sum(node.fates.count(fate) for node in self.nodes.values())

    @property
    def irregular(self) -> bool:
        """Whether some dependencies of tasks cannot be expressed as a mapping over axes."""
        return any(edge.starts for node in self.nodes.values() for edge in node.edges)

    def asked(self, node: NodePlan, index: int | None = None) -> Resources:
        """Return what a task requests: its node's resources, this plan's, what was raised."""
        asked = self.kept.over(node.node.resources)
        if index is not None and index in node.raised:
            asked = asked.at_least(node.raised[index])
        return self.resources.over(asked)


def make_plan(
    workflow: Workflow,
    known: Mapping[str, Known] | None = None,
    files: Files | None = None,
    resources: Resources | None = None,
) -> Plan:
    """Determine every task's key and fate. Starts nothing and writes nothing.

    Raises WorkflowError for an empty workflow, code that cannot travel, values that have no key.
    """
    return find_fates(freeze(workflow, files, resources), known, resources)


def freeze(
    workflow: Workflow, files: Files | None = None, resources: Resources | None = None
) -> Frozen:
    """Make a plan of a workflow, from the current folder. Raises as `make_plan`."""
    if not workflow.nodes:
        raise WorkflowError(f"workflow {workflow.name!r} has no nodes; add some with wf.add(…)")
    own = Own(workflow.source)
    digests = Digests(files or Files(workflow.files), own)
    frozen: dict[str, NodeRecord] = {}
    writer = Writer(frozen, own, workflow.folder, Path.cwd())
    for node in workflow.nodes.values():  # in the order added, which is upstream first
        if not isinstance(node.call, Command):
            check_callable(node.call, own)
        asked = (resources or Resources()).over(node.resources)
        parts = _node_parts(node, asked, digests)
        shared = combine(*(digest for _, digest in parts))
        columns = _axis_columns(node, digests)
        record = _freeze_node(node, shared, columns, workflow.sweep, writer, frozen)
        said = [*parts, *_code_parts(digests)]
        record.parts = [(what, bytes(digest)[:_SHOWN]) for what, digest in said if what]
        if isinstance(node.call, Command):
            record.parts += [(what, UNCOUNTED) for what in uncounted(node.call, _given(node))]
        frozen[node.name] = record
    return Frozen(
        workflow.name,
        str(workflow.folder),
        str(Path.cwd()),
        [folder for folder in sys.path if folder],
        sys.executable,
        str(sys.implementation.cache_tag),
        workflow.sweep,
        workflow.files,
        frozen,
    )


def _freeze_node(
    node: Node,
    shared: bytes,
    columns: list[list[bytes]],
    sweep: int,
    writer: Writer,
    above: Mapping[str, NodeRecord],
) -> NodeRecord:
    taken = node.upstreams
    partial = any(one.least is not None or above[one.node.name].partial for one in taken)
    sh = _is_static(node) and not (partial or node.grows)  # sh knows only results that have all
    edges = (
        ()
        if node.grows
        else tuple(
            make_edge(node.axes, output.node.name, output.node.axes, output.gathered, output.least)
            for output in taken
        )
        + tuple(node.links)
    )
    return NodeRecord(
        node.name,
        () if node.grows else node.axes,
        b"" if node.grows else make_keys(shared, places_of(columns), sweep, edges, above),
        edges,
        node.resources,
        node.folder,
        frozenset(() if node.grows else node.done),
        node.seconds,
        sh,
        node.fuse,
        isinstance(node.call, Command) and node.folder,
        [writer.payloads(node, sh=sh)],
        None,
        len(node.upstreams) - len(node.after),
        None if node.grows else _recipe(shared, columns, edges, above),
        partial=partial,
        growth=make_growth(node, shared, columns) if node.grows else None,
    )


def refresh(plan: Frozen, files: Files) -> Frozen:
    """Recompute the keys of tasks whose input files have changed."""
    nodes: dict[str, NodeRecord] = {}
    for name, node in plan.nodes.items():
        nodes[name] = node
        if node.growth is not None:
            nodes[name] = replace(node, growth=refresh_growth(node.growth, files))
        elif node.recipe is not None:
            shared = make_again(node.recipe[0], files)
            columns = [[make_again(one, files) for one in column] for column in node.recipe[1]]
            keys = make_keys(shared, places_of(columns), plan.sweep, node.edges, nodes)
            how = _recipe(shared, columns, node.edges, nodes)
            nodes[name] = node if keys == node.keys else replace(node, keys=keys, recipe=how)
    return plan._replace(nodes=nodes)


def _is_static(node: Node) -> bool:
    """Return whether a command's words are known before anything runs, so that sh can run it."""
    return isinstance(node.call, Command) and all(
        _is_static(output.node) for output in node.upstreams if output not in node.after
    )


def find_fates(
    plan: Frozen,
    known: Mapping[str, Known] | None = None,
    resources: Resources | None = None,
    kept: Resources | None = None,
) -> Plan:
    """Determine which tasks of a plan are done, in flight or to run."""
    columns = {n: Columns(node.keys, node.edges, node.done) for n, node in plan.nodes.items()}
    fates, replaced = decide(columns, known or {})
    nodes = {
        name: NodePlan(node, fates[name].column, fates[name].in_flight, fates[name].raised)
        for name, node in plan.nodes.items()
    }
    return Plan(plan, nodes, resources or Resources(), kept or Resources(), frozenset(replaced))


def _recipe(
    shared: bytes,
    columns: Sequence[Sequence[bytes]],
    edges: Sequence[Edge],
    upstream: Mapping[str, NodeRecord],
) -> tuple[Any, Any] | None:
    """Return how keys are made, if they depend on files; most of a million tasks' do not."""
    traced = isinstance(shared, Traced) or any(Traced in map(type, one) for one in columns)
    if not traced and all(upstream[edge.upstream].recipe is None for edge in edges):
        return None
    return recipe(shared), [[recipe(place) for place in column] for column in columns]


def _node_parts(node: Node, asked: Resources, digests: Digests) -> list[tuple[str, bytes]]:
    """Digest what all tasks of a node share: its name, code and fixed inputs, each by its name.

    Of the software, the versions that are requested, since they decide which results will do; not
    the one that a site has, or the same workflow would be another one on another cluster. The code
    has no name of its own, and is given by its files.
    """
    digests.code = {}
    counter = iter(range(len(node.upstreams)))
    axes = [axis.name for axis in node.axes]
    inputs = []
    for name, value in node.arguments.items():
        if isinstance(value, Each):
            assert value.axis is not None
            shared: Any = ("each", axes.index(value.axis.name))
        else:
            shared = _skeleton(files_of(node, name)(value), counter)
        digest = name.encode() + b"=" + _digest(node, name, shared, digests)
        said = f"each of {name}" if isinstance(value, Each) else f"input {name}"
        inputs.append((said, combine(digest)))
    # Which inputs each upstream key stands for must count too: names and selected parts.
    shape = [
        (o.node.name, list(o.select), list(o.gathered), *([o.along] if o.along else []))
        for o in node.upstreams
    ]
    parts = [("name and folder", digests.digest((node.name, node.folder))), *sorted(inputs)]
    parts.append(("what it takes of upstream nodes" if shape else "", digests.digest(shape)))
    if versions := sorted(one for one in asked.software or () if re.search(r"[<>=]", one)):
        parts.append((f"software {' '.join(versions)}", digests.digest(("software", *versions))))
    if isinstance(node.call, Command):
        parts.append(("command", digests.digest(node.call.identity)))
        parts += [
            (f"file {word}", digests.digest(path)) for word, path in files_of_words(node.call)
        ]
    else:
        parts.append(("", digests.digest(node.call)))
    return parts


def _given(node: Node) -> Iterator[Any]:
    """Yield the values that the tasks of a node are given, as far as they are known."""
    for value in node.arguments.values():
        yield from value.values if isinstance(value, Each) else [value]


def _code_parts(digests: Digests) -> Iterator[tuple[str, bytes]]:
    """Yield the code that was met in each file."""
    for file, found in sorted(digests.code.items()):
        yield f"code {file}", combine(*sorted(found))


def _digest(node: Node, argument: str, value: Any, digests: Digests) -> bytes:
    try:
        return digests.digest(value)
    except WorkflowError as error:
        raise WorkflowError(f"{node.name}: {argument}: {error}") from error


def _skeleton(value: Any, counter: Any) -> Any:
    """Replace the outputs within a value by their positions; all else stays as it is."""
    if isinstance(value, Output):
        return ("upstream", next(counter))
    if not any(references([value])):
        return value
    if isinstance(value, dict):
        return {key: _skeleton(item, counter) for key, item in value.items()}
    return (type(value).__name__, [_skeleton(item, counter) for item in value])


def _axis_columns(node: Node, digests: Digests) -> list[list[bytes]]:
    """Return the bytes that each place on each axis adds to a key: its values there.

    Its name counts only where tasks have working folders, whose paths may be in results.
    """
    columns = []
    for axis in node.axes:
        folders = axis.folders or axis.labels
        column = [name.encode() + b"\0" if node.folder else b"" for name in folders]
        own = {
            name: value.values
            for name, value in sorted(node.arguments.items())
            if isinstance(value, Each) and value.axis is not None and value.axis.name == axis.name
        }
        for name, values in own.items():
            read = files_of(node, name)
            for place, item in enumerate(values):
                value = read(item)
                column[place] += _digest(node, name, value, digests)
                if type(value) not in PLAIN and any(
                    isinstance(leaf, Path) for leaf in leaves([value])
                ):
                    # Files of two subjects may have the same name and content.
                    column[place] += label_of(value).encode()
        columns.append(_apart(column, list(own.values())) if own else column)
    return columns


def _apart(column: list[bytes], values: Sequence[Sequence[Any]]) -> list[bytes]:
    """Make equal entries different, since no two tasks may share a key: by all of the values,
    and, where these are equal too, by numbers."""
    for tell in (lambda place: long_label([one[place] for one in values]), None):
        seen: dict[bytes, list[int]] = {}
        if len(set(column)) == len(column):
            return column
        for place, entry in enumerate(column):
            seen.setdefault(entry, []).append(place)
        for places in seen.values():
            for number, place in enumerate(places) if len(places) > 1 else ():
                column[place] += (tell(place) if tell else str(number)).encode()
    return column
