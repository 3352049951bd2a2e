"""Single calls as tasks of a workflow: one node per function.

All calls of a function are tasks along the axis ``call``. A call is named by those of its arguments
that have a name (the stem of a path, text, a number), with a number appended if the name is taken;
otherwise by its number. The same program, started again, thus names its calls as before and finds
what is done.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from pickle import dumps
from typing import TYPE_CHECKING, Any

from hpcpipe.errors import WorkflowError
from hpcpipe.executor.futures import TaskFuture
from hpcpipe.graph.hints import as_files, each_path, hint_of, names_file
from hpcpipe.graph.labels import labels_for
from hpcpipe.graph.makers import maker
from hpcpipe.graph.node import TaskOptions
from hpcpipe.keys.code import is_installed
from hpcpipe.keys.digest import Digests
from hpcpipe.keys.file_digest import Files, combine
from hpcpipe.keys.pickling import Own, check_callable, pickle_value
from hpcpipe.keys.references import Pushed
from hpcpipe.resources import Resources
from hpcpipe.store.rundir import RunDir, write_whole
from hpcpipe.worker.outcome import seal

if TYPE_CHECKING:
    from hpcpipe.nipype.interface import InterfaceCall

AXIS = "call"
_TELLING = ("__code__", "__defaults__", "__kwdefaults__")


@dataclass(eq=False)
class Call:
    """One call, and the future that was returned for it."""

    node: str
    wanted: str  # the preferred label
    label: str
    function: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    constants: Mapping[str, Any]
    resources: Resources
    folder: bool
    future: TaskFuture[Any] = field(default_factory=TaskFuture)

    @property
    def name(self) -> str:
        """The name of its task."""
        return f"{self.node}/{self.label}"

    def goes_with(self, other: Call) -> bool:
        """Return whether both can be tasks of one node in one submission."""
        return self.resources == other.resources and self.constants == other.constants


class Calls:
    """A factory of calls whose names are unique within this client."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        program = getattr(sys.modules.get("__main__"), "__file__", None)
        self.source = str(program) if program and not is_installed(Path(program)) else ""
        self.own = Own(self.source)
        self._digests = Digests(Files(), self.own)
        # Both by id, which stays valid because the entry keeps the object alive.
        self._nodes: dict[int, tuple[Callable[..., Any], str]] = {}
        self._interfaces: dict[int, tuple[Any, InterfaceCall]] = {}
        self._functions: dict[str, bytes] = {}  # digests by node
        self._constants: dict[str, Pushed] = {}
        # Taken labels by node, case-folded, because some file systems ignore case.
        self._labels: dict[str, set[str]] = defaultdict(set)
        # The last number appended to a label, by node and label.
        self._numbers: dict[tuple[str, str], int] = defaultdict(lambda: 1)

    def make(
        self,
        function: Callable[..., Any],
        positional: tuple[Any, ...],
        named: dict[str, Any],
        pack: int | None = None,
    ) -> Call:
        """Return a new call; raise WorkflowError if its function cannot be sent to a node."""
        while isinstance(function, functools.partial):
            positional = (*function.args, *positional)
            named = {**function.keywords, **named}
            function = function.func
        options = getattr(function, "__hpcpipe__", TaskOptions(Resources(), None))
        if hasattr(function, "input_spec"):
            function, named, options = self._interface(function, named)
        node = self._node(function)
        arguments, taken = _read(function, positional, named, self._constants)
        folder = names_file(hint_of(function, "return"))
        folder = folder if options.folder is None else options.folder
        if _shared(function) is not function:
            function, arguments = operator.call, ((function, *arguments[0]), arguments[1])
        label = _label((*positional, *named.values())) or str(len(self._labels[node]) + 1)
        resources = Resources(pack=pack).over(options.resources.over(self._resources))
        call = Call(node, label, label, function, arguments, taken, resources, folder)
        self.rename(call)
        return call

    def push(self, rundir: RunDir, constants: Mapping[str, Any]) -> None:
        """Write constants into a run's folder, for later calls of functions that take them."""
        for name, value in constants.items():
            try:
                digest = self._digests.digest(value)
                with self.own.by_value():
                    data = seal(digest.hex(), True, dumps({}, 4) + pickle_value(value, self.own))
            except Exception as error:
                raise WorkflowError(f"push: {name}: cannot be sent to a node: {error}") from error
            rundir.create()
            rundir.pushed.mkdir(exist_ok=True, mode=0o700)
            file = rundir.pushed / f"{digest.hex()}.pkl"
            if not file.exists():
                write_whole(file, data)
            self._constants[name] = Pushed(f"{file.parent.name}/{file.name}")

    def rename(self, call: Call) -> None:
        """Append a number to a call's label so that it is unique within this client."""
        taken, wanted = self._labels[call.node], (call.node, call.wanted)
        while call.label.casefold() in taken:
            self._numbers[wanted] += 1
            call.label = f"{call.wanted}-{self._numbers[wanted]}"
        taken.add(call.label.casefold())

    def _interface(
        self, interface: Any, named: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any], TaskOptions]:
        """Return a nipype interface as a function that runs in its own folder."""
        make_call = maker("input_spec")
        call, named, resources = make_call(type(interface).__name__.lower(), interface, named)
        _, call = self._interfaces.setdefault(id(interface), (interface, call))
        return call, named, TaskOptions(resources, True)

    def _node(self, function: Callable[..., Any]) -> str:
        """Return the node name of a function: its own, numbered if another function has it."""
        if not callable(function):
            raise WorkflowError(f"submit({function!r}): not a function")
        shared = _shared(function)
        known = self._nodes.get(id(shared))
        if known is None:
            check_callable(function, self.own)
            digest = self._identity(shared)
            said = getattr(function, "__name__", type(function).__name__)
            wanted = re.sub(r"[^A-Za-z0-9_]", "", said)[:50].lstrip("0123456789") or "call"
            name, count = wanted, 1
            while self._functions.setdefault(name, digest) != digest:
                count += 1
                name = f"{wanted}-{count}"
            known = self._nodes[id(shared)] = shared, name
        return known[1]

    def _identity(self, function: Any) -> bytes:
        """Return a digest that distinguishes functions; keys hold only installed ones' names."""
        parts = [function, *(getattr(function, name, None) for name in _TELLING)]
        return combine(*map(self._digests.digest, parts))


def _shared(function: Any) -> Any:
    """Return what calls of a function have in common: the function, unless it carries data.

    Closures and lambdas made in a loop, methods and callable objects differ in what they carry, and
    not in what they do. Their calls are one node, and they travel as an argument.
    """
    if isinstance(function, types.MethodType) and not isinstance(function.__self__, type):
        return function.__func__
    if isinstance(function, types.FunctionType):
        local = "<" in function.__qualname__  # <locals>, <lambda>
        carries = function.__closure__ or (
            local and (function.__defaults__ or function.__kwdefaults__)
        )
        return function.__code__ if carries else function
    return function if hasattr(function, "__name__") else type(function)


def _read(
    function: Callable[..., Any],
    positional: tuple[Any, ...],
    named: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Bind arguments to a function's parameters; return them and the constants it takes.

    Paths are made absolute, because the task may run in its own folder. Raises WorkflowError if the
    function does not accept the arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = inspect.Signature()  # a builtin without one; the call itself will check
    parameters = signature.parameters

    def absolute(name: str, value: Any) -> Any:
        value = as_files(value, hint_of(function, name))
        return each_path(value, lambda path: Path(os.path.abspath(path)))

    names = [*parameters, *("",) * len(positional)]
    positional = tuple(map(absolute, names, positional))
    named = {name: absolute(name, value) for name, value in named.items()}
    if not parameters:
        return (positional, named), {}
    try:
        given = signature.bind_partial(*positional, **named).arguments
        taken = {n: value for n, value in constants.items() if n in parameters and n not in given}
        signature.bind(*positional, **named, **taken)
    except TypeError as error:
        said = getattr(function, "__qualname__", type(function).__qualname__)
        raise WorkflowError(f"{said}: {error}") from error
    return (positional, named), taken


def _label(values: Iterable[Any]) -> str:
    telling = tuple(v for v in values if isinstance(v, str | os.PathLike | Number))
    return labels_for([telling])[0] if telling else ""
