"""The workflow: nodes, the axes they are mapped over, and how values flow between them.

A node is one function or command; its axes determine how often it is called. The graph holds tens
or hundreds of nodes, never tasks: a map over a million elements is one vertex. Every mistake that
can be detected here is reported here, naming the node and the argument.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import WorkflowError, near
from hpcpipe.graph.axes import Axis, Source
from hpcpipe.graph.each import Each
from hpcpipe.graph.hints import hint_of, names_file, unwrapped
from hpcpipe.graph.makers import maker
from hpcpipe.graph.node import (
    Node,
    Output,
    TaskOptions,
    check_name,
    leaves,
    read_resources,
    references,
)
from hpcpipe.resources import Resources

if TYPE_CHECKING:
    import networkx

    from hpcpipe.graph.command import Command
    from hpcpipe.run import Results, Run


@dataclass(eq=False, repr=False)
class Workflow:
    """A graph of nodes, and its folder: ``<base_dir>/<name>``.

    ``files`` determines how input files enter a task's key: by ``"content"`` (the default) or, if
    they are too big to read, by ``"stat"``, their size and modification time.
    """

    name: str
    base_dir: str | os.PathLike[str] = "."
    files: str = "content"
    nodes: dict[str, Node] = field(default_factory=dict)
    source: str = ""  # the file it was loaded from, for `retry`
    tasks: dict[Hashable, str] = field(default_factory=dict, repr=False)  # by vertex of a graph
    sweep: int = 0  # enters every key: outcomes of another sweep do not count

    def __post_init__(self) -> None:
        check_name(self.name, "workflow")
        if self.files not in ("content", "stat"):
            raise WorkflowError(f"files={self.files!r}: write 'content' or 'stat'")
        self.base_dir = Path(os.path.abspath(self.base_dir))

    def __repr__(self) -> str:
        """Name the workflow, its folder and its nodes, without their values."""
        nodes = ", ".join([*self.nodes][:8]) + ", …" * (len(self.nodes) > 8)
        return f"<Workflow {self.name!r} in {self.base_dir}: {nodes or 'no nodes'}>"

    @property
    def folder(self) -> Path:
        """The folder of the workflow's files."""
        return Path(self.base_dir, self.name)

    @property
    def graph(self) -> networkx.DiGraph:
        """The graph of node names, with an edge for every flow of values."""
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for node in self.nodes.values():
            graph.add_edges_from((output.node.name, node.name) for output in node.upstreams)
        return graph

    def begin(self) -> None:
        """Write further files into the folder before a submission; a subclass may override this."""

    def add(
        self,
        function: Any,
        /,
        *,
        name: str | None = None,
        after: Node | Output | Sequence[Node | Output] = (),
        **inputs: Any,
    ) -> Node:
        """Add a function as a node; its inputs are values, `each` of them, or other nodes.

        A nipype interface counts as a function that returns its outputs by name. ``name`` defaults
        to the function's own; ``after`` names nodes to wait for without taking their value. Raises
        WorkflowError for an unknown or missing input, a duplicate name, or axes that clash.
        """
        if hasattr(function, "input_spec"):
            return self._interface(function, name, after, inputs)
        if not callable(function):
            raise WorkflowError(f"add({function!r}): not a function; for a command use wf.command")
        name = self._free_name(name or str(getattr(function, "__name__", "")))
        _check_inputs(name, function, inputs)
        options = getattr(unwrapped(function), "__hpcpipe__", TaskOptions(Resources(), None))
        folder = names_file(hint_of(function, "return"))
        folder = folder if options.folder is None else options.folder
        return self._add(name, function, inputs, options.resources, folder, after)

    def _interface(
        self,
        interface: Any,
        name: str | None,
        after: Node | Output | Sequence[Node | Output],
        inputs: Mapping[str, Any],
    ) -> Node:
        make_call = maker("input_spec")
        name = self._free_name(name or type(interface).__name__.lower())
        call, arguments, resources = make_call(name, interface, inputs, self.folder)
        return self._add(name, call, arguments, resources, True, after)

    def command(
        self,
        words: str | Sequence[str],
        /,
        *,
        name: str | None = None,
        outputs: str | Mapping[str, str] | None = None,
        after: Node | Output | Sequence[Node | Output] = (),
        resources: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Node:
        """Add a command as a node: ``wf.command("bet {image} {brain} -f {frac}", …)``.

        ``words`` are split as a shell would, but no shell runs them: a value is always one word.
        ``{image}`` stands for an input, ``{image.stem}`` for its file name without suffix;
        ``.name`` and ``.parent`` also exist. ``outputs`` names the files created in the task's own
        folder: a single one, ``{output}`` in the words, or several by name. ``resources`` are as
        for `task`. Raises WorkflowError like `add`.
        """
        from hpcpipe.graph.command import make_command

        command = make_command(words, outputs, inputs)
        name = self._free_name(name or command.default_name)
        asked = read_resources(resources or {}, name)
        return self._add(name, command, inputs, asked, bool(command.outputs), after)

    def _free_name(self, name: str) -> str:
        if name in ("", "<lambda>"):
            raise WorkflowError("a lambda or partial has no name to give its node; give name=")
        if name in self.nodes:
            raise WorkflowError(f"{name}: a node of this name exists already; give name=")
        return check_name(name, "node")

    def _add(
        self,
        name: str,
        call: Callable[..., Any] | Command,
        inputs: Mapping[str, Any],
        resources: Resources,
        folder: bool,
        after: Node | Output | Sequence[Node | Output],
    ) -> Node:
        arguments = {key: _named(name, key, value) for key, value in inputs.items()}
        waits = tuple(_awaited(name, after))
        for output in (*references(arguments.values()), *waits):
            if self.nodes.get(output.node.name) is not output.node:
                raise WorkflowError(f"{name}: {output.node.name!r} is a node of another workflow")
        axes = _axes(name, arguments, waits)
        taken = (*references(arguments.values()), *waits)
        grows = any(output.along or output.node.grows for output in taken)
        node = Node(name, call, arguments, axes, resources, folder, waits, grows=grows)
        self.nodes[name] = node
        return node

    def submit(self, **options: Any) -> Run:
        """Submit the tasks that still need to run, and return at once.

        Options are those of `hpcpipe.run.submit`: ``site``, ``resources``, ``over_budget``,
        ``replace``.
        """
        from hpcpipe.graph.loading import stop_reading
        from hpcpipe.run import submit

        stop_reading(self)
        return submit(self, **options)

    def run(self, **options: Any) -> Results:
        """Submit, show progress until the run has finished, and return the results.

        Raises TasksFailed if a task did not succeed.
        """
        from hpcpipe.run import Results

        run = self.submit(**options)
        run.wait(show=True)
        return Results(run)


def _named(node: str, argument: str, value: Any) -> Any:
    """Turn nodes into outputs, and name the axis of an `each` after its argument."""
    if isinstance(value, Node):
        return Output(value)
    if isinstance(value, Output) and value.along == "":
        along = check_name(argument, f"{node}: {argument}: give axis=, since its axis")
        return replace(value, along=along)
    if isinstance(value, Each) and value.axis is None:
        return value.along(check_name(argument, f"{node}: {argument}: give axis=, since its axis"))
    if isinstance(value, list | tuple):
        items = [_named(node, argument, item) for item in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, dict):
        return {key: _named(node, argument, item) for key, item in value.items()}
    return value


def _awaited(node: str, after: Any) -> Iterator[Output]:
    for one in (after,) if isinstance(after, Node | Output | str) else after:
        if not isinstance(one, Node | Output):
            raise WorkflowError(f"{node}: after={one!r} is not a node; write after=[node, …]")
        if isinstance(one, Output) and one.least is not None:
            raise WorkflowError(f"{node}: after= waits for all: leave out missing='skip' there")
        yield Output(one) if isinstance(one, Node) else one


def _axes(name: str, arguments: Mapping[str, Any], after: Sequence[Output]) -> tuple[Axis, ...]:
    """Return a node's axes: those of its upstreams that are not gathered, then its own."""
    found: dict[str, tuple[Axis, str]] = {}

    def join(axis: Axis, where: str) -> None:
        have, first = found.setdefault(axis.name, (axis, where))
        if have.source != axis.source:
            raise WorkflowError(
                f"{name}: axis {axis.name!r} is of one list by {first} and of another by {where}; "
                "map over one node that returns a list of tuples, or name the axes differently"
            )
        if have.labels != axis.labels:
            raise WorkflowError(
                f"{name}: axis {axis.name!r} has {_few(have.labels)} by {first} but "
                f"{_few(axis.labels)} by {where}; use each.zip to pair values, "
                "or name the axes differently for every combination"
            )

    taken = [(one, argument) for argument, v in arguments.items() for one in references([v])]
    for output, argument in [*taken, *((one, "after") for one in after)]:
        for axis in _kept(name, output):
            join(axis, f"{argument}={output.node.name}")
    for argument, value in arguments.items():
        if isinstance(value, Each) and value.axis is not None:
            join(value.axis, argument)
        elif isinstance(value, Output) and value.along:
            within = tuple(axis.name for axis in value.node.axes)
            source = Source(value.node.name, value.select, within)
            join(Axis(value.along, (), (), source), argument)
        elif any(_is_mapped(item) for item in leaves([value])):
            raise WorkflowError(f"{name}: {argument}: each(...) must be the whole argument")
    return tuple(axis for axis, _ in found.values())


def _kept(name: str, output: Output) -> Iterator[Axis]:
    """Yield the axes of an output that are not gathered."""
    for axis in output.node.axes:
        if axis.name in output.gathered:
            continue
        for within in axis.source.within if axis.source else ():
            if within in output.gathered:
                raise WorkflowError(
                    f"{name}: gather({within!r}) of {output.node.name}: gather {axis.name!r} too, "
                    f"which has a length of its own for each {within}"
                )
        yield axis


def _is_mapped(value: Any) -> bool:
    return isinstance(value, Each) or (isinstance(value, Output) and value.along is not None)


def _few(labels: Sequence[str]) -> str:
    shown = " ".join(labels[:3]) + (" …" if len(labels) > 3 else "")
    return f"{len(labels)} ({shown})"


def _check_inputs(name: str, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    """Raise WorkflowError if a function cannot be called with these arguments."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return  # a builtin without a signature; the call itself will fail if it must
    known = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for given in inputs:
        if given not in known and not takes_any:
            raise WorkflowError(f"{name}: no input {given!r}{near(given, known)}")
    for needed, p in parameters.items():
        if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.kind is p.POSITIONAL_ONLY:
            raise WorkflowError(f"{name}: input {needed!r} has no name; wrap it in a function")
        if needed in ("name", "after"):
            raise WorkflowError(f"{name}: add takes {needed}= for itself; rename that input")
        if needed not in inputs:
            raise WorkflowError(f"{name}: input {needed!r} is missing; write {needed}=…")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise WorkflowError(f"{name}: async functions are not supported; make it a plain function")
    if inspect.isgeneratorfunction(function):
        raise WorkflowError(f"{name}: a generator cannot be kept as a result; return a list")
