"""What the user writes: nodes, the axes they are mapped over, and how values flow between them.

A node is one function or command; its axes say how often it is called. The graph holds nodes, tens
or hundreds of them, never tasks: a map over a million elements is one vertex. Every mistake that
can be seen here is told here, naming the node and the argument.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcpipe.axes import Axis
from hpcpipe.errors import WorkflowError, near
from hpcpipe.mapped import Each
from hpcpipe.model import Resources
from hpcpipe.node import (
    Node,
    Output,
    TaskOptions,
    check_name,
    leaves,
    read_resources,
    references,
)

if TYPE_CHECKING:
    import networkx

    from hpcpipe.command import Command
    from hpcpipe.run import Results, Run


@dataclass(eq=False)
class Workflow:
    """A graph of nodes, and the folder they work in: ``<base_dir>/<name>``.

    ``files`` says how input files enter a task's key: by ``"content"`` (the default) or by
    ``"stat"``, their size and time of change, where they are too big to read.
    """

    name: str
    base_dir: str | os.PathLike[str] = "."
    files: str = "content"
    nodes: dict[str, Node] = field(default_factory=dict)
    source: str = ""  # the file it was loaded from, for `retry`
    sweep: int = 0  # is in every key: outcomes of another sweep do not count

    def __post_init__(self) -> None:
        check_name(self.name, "workflow")
        if self.files not in ("content", "stat"):
            raise WorkflowError(f"files={self.files!r}: write 'content' or 'stat'")
        self.base_dir = Path(os.path.abspath(self.base_dir))

    @property
    def folder(self) -> Path:
        """Where the workflow's files lie."""
        return Path(self.base_dir, self.name)

    @property
    def graph(self) -> networkx.DiGraph:
        """The nodes by name, with an edge for every flow of values."""
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for node in self.nodes.values():
            graph.add_edges_from((output.node.name, node.name) for output in node.upstreams)
        return graph

    def begin(self) -> None:
        """Write what else is to be in the folder when something is submitted: here nothing."""

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

        An interface of nipype is taken as a function that returns its outputs by name.
        ``name`` defaults to the function's own; ``after`` names nodes to wait for without taking
        their value. Raises WorkflowError for an unknown or missing input, a name used twice, axes
        that clash, or a function that cannot be sent to a node.
        """
        if hasattr(function, "input_spec"):
            return self._interface(function, name, after, inputs)
        if not callable(function):
            raise WorkflowError(f"add({function!r}): not a function; for a command use wf.command")
        name = self._free_name(name or str(getattr(function, "__name__", "")))
        _check_inputs(name, function, inputs)
        options = getattr(function, "__hpcpipe__", TaskOptions(Resources(), None))
        folder = returns_path(function) if options.folder is None else options.folder
        return self._add(name, function, inputs, options.resources, folder, after)

    def _interface(
        self,
        interface: Any,
        name: str | None,
        after: Node | Output | Sequence[Node | Output],
        inputs: Mapping[str, Any],
    ) -> Node:
        from hpcpipe.interfaces import make_call

        name = self._free_name(name or type(interface).__name__.lower())
        call, arguments, resources = make_call(name, interface, inputs)
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
        ``{image}`` stands for an input, ``{image.stem}`` for its file name less suffix, also
        ``.name`` and ``.parent``. ``outputs`` gives file names, made in the task's own folder:
        one, ``{output}`` in the words, or several by name. ``resources`` are those of `task`.
        Raises WorkflowError as `add`.
        """
        from hpcpipe.command import make_command

        command = make_command(words, outputs, inputs)
        name = self._free_name(name or command.default_name)
        asked = read_resources(resources or {}, name)
        return self._add(name, command, inputs, asked, bool(command.outputs), after)

    def _free_name(self, name: str) -> str:
        if name in ("", "<lambda>"):
            raise WorkflowError("a lambda or partial has no name to call its node by; give name=")
        if name in self.nodes:
            raise WorkflowError(f"{name}: there is a node of this name already; give name=")
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
        node = Node(name, call, arguments, axes, resources, folder, waits)
        self.nodes[name] = node
        return node

    def submit(self, **options: Any) -> Run:
        """Hand everything that is not done to the scheduler and return at once.

        Options are those of `hpcpipe.run.submit`: ``site``, ``resources``, ``over_budget``.
        """
        from hpcpipe.functions import is_loading
        from hpcpipe.run import submit

        if is_loading():
            raise WorkflowError(
                f"{self.name}: submits itself while its file is only being read; "
                'put wf.submit() under if __name__ == "__main__":'
            )
        return submit(self, **options)

    def run(self, **options: Any) -> Results:
        """Submit, show progress until all has ended, and return the results.

        Raises TasksFailed where a task did not end well.
        """
        from hpcpipe.run import Results

        run = self.submit(**options)
        run.wait(show=True)
        return Results(run)


def _named(node: str, argument: str, value: Any) -> Any:
    """Turn nodes into outputs, and give an `each` without an axis the argument's name."""
    if isinstance(value, Node):
        return Output(value)
    if isinstance(value, Each) and value.axis is None:
        name = check_name(argument, f"{node}: {argument}: give axis=, since its axis")
        return Each(value.values, Axis(name, value.labels), value.labels)
    if isinstance(value, list | tuple):
        items = [_named(node, argument, item) for item in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, dict):
        return {key: _named(node, argument, item) for key, item in value.items()}
    return value


def _awaited(node: str, after: Any) -> Iterator[Output]:
    for one in (after,) if isinstance(after, Node | Output | str) else after:
        if not isinstance(one, Node | Output):
            raise WorkflowError(f"{node}: after={one!r} is no node; write after=[node, …]")
        yield Output(one) if isinstance(one, Node) else one


def _axes(name: str, arguments: Mapping[str, Any], after: Sequence[Output]) -> tuple[Axis, ...]:
    """Collect a node's axes: its upstreams' first, less those gathered, then its own."""
    found: dict[str, tuple[Axis, str]] = {}

    def join(axis: Axis, where: str) -> None:
        have, first = found.setdefault(axis.name, (axis, where))
        if have.labels != axis.labels:
            raise WorkflowError(
                f"{name}: axis {axis.name!r} has {_few(have.labels)} by {first} but "
                f"{_few(axis.labels)} by {where}; use each.zip for values that go together, "
                "or name the axes differently for every combination"
            )

    for argument, value in arguments.items():
        for output in references([value]):
            for axis in output.node.axes:
                if axis.name not in output.gathered:
                    join(axis, f"{argument}={output.node.name}")
    for output in after:
        for axis in output.node.axes:
            if axis.name not in output.gathered:
                join(axis, f"after={output.node.name}")
    for argument, value in arguments.items():
        if isinstance(value, Each) and value.axis is not None:
            join(value.axis, argument)
        elif any(isinstance(item, Each) for item in leaves([value])):
            raise WorkflowError(f"{name}: {argument}: each(...) must be the whole argument")
    return tuple(axis for axis, _ in found.values())


def _few(labels: Sequence[str]) -> str:
    shown = " ".join(labels[:3]) + (" …" if len(labels) > 3 else "")
    return f"{len(labels)} ({shown})"


def returns_path(function: Callable[..., Any]) -> bool:
    """Tell whether a function is annotated to return a Path."""
    hint = getattr(function, "__annotations__", {}).get("return")
    return hint is Path or (isinstance(hint, str) and hint in ("Path", "pathlib.Path"))


def _check_inputs(name: str, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    """Raise WorkflowError unless a function can be called with these arguments."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return  # a builtin that does not tell; the call itself will
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
        raise WorkflowError(f"{name}: an async function has no result to wait for; make it plain")
    if inspect.isgeneratorfunction(function):
        raise WorkflowError(f"{name}: a generator cannot be kept as a result; return a list")
