"""Calls that a client makes one by one, as the nodes of a workflow: one node a function.

All calls of a function are tasks along the axis ``call``. Each is named by those of its arguments
that have a name (a path by its stem, text, a number), with a number behind it where the name is
taken; else by its number. So the same program, started again, names its calls as before, and finds
what is done.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from pickle import dumps
from typing import TYPE_CHECKING, Any

from hpcpipe.digest import Digests
from hpcpipe.errors import WorkflowError
from hpcpipe.files import Files, combine
from hpcpipe.functions import Own, check_callable, is_installed, pickle_value
from hpcpipe.labels import labels_for
from hpcpipe.model import Resources
from hpcpipe.node import TaskOptions
from hpcpipe.pending import Pushed
from hpcpipe.rundir import RunDir, write_whole
from hpcpipe.workflow import returns_path

if TYPE_CHECKING:
    from hpcpipe.interface import InterfaceCall

AXIS = "call"
_TELLING = ("__code__", "__defaults__", "__kwdefaults__")


@dataclass(eq=False)
class Call:
    """One call that was asked for, and the future that was given for it."""

    node: str
    wanted: str  # as a label
    label: str
    function: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    constants: Mapping[str, Any]
    resources: Resources
    folder: bool
    future: Future[Any] = field(default_factory=Future)

    @property
    def name(self) -> str:
        """Name the task that it is."""
        return f"{self.node}/{self.label}"

    def goes_with(self, other: Call) -> bool:
        """Tell whether both can be tasks of one node, in one submission."""
        return self.resources == other.resources and self.constants == other.constants


class Calls:
    """Makes calls, with names that no other call of this client has."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        program = getattr(sys.modules.get("__main__"), "__file__", None)
        self.source = str(program) if program and not is_installed(Path(program)) else ""
        self.own = Own(Path(self.source).parent if self.source else Path.cwd())
        self._digests = Digests(Files(), self.own)
        self._nodes: dict[int, tuple[Callable[..., Any], str]] = {}  # by id, which it keeps valid
        self._interfaces: dict[int, tuple[Any, InterfaceCall]] = {}  # by id, likewise
        self._functions: dict[str, bytes] = {}  # by node, its digest
        self._constants: dict[str, Pushed] = {}
        self._labels: dict[str, set[str]] = defaultdict(set)  # by node, for all file systems
        self._numbers: dict[tuple[str, str], int] = defaultdict(
            lambda: 1
        )  # the last behind a label

    def make(
        self,
        function: Callable[..., Any],
        positional: tuple[Any, ...],
        named: dict[str, Any],
        pack: int | None = None,
    ) -> Call:
        """Make a call; raises WorkflowError where its function cannot be sent to a node."""
        while isinstance(function, functools.partial):
            positional = (*function.args, *positional)
            named = {**function.keywords, **named}
            function = function.func
        options = getattr(function, "__hpcpipe__", TaskOptions(Resources(), None))
        if hasattr(function, "input_spec"):
            function, named, options = self._interface(function, named)
        node = self._node(function)
        arguments, taken = _read(function, positional, named, self._constants)
        label = _label((*positional, *named.values())) or str(len(self._labels[node]) + 1)
        resources = Resources(pack=pack).over(options.resources.over(self._resources))
        folder = returns_path(function) if options.folder is None else options.folder
        call = Call(node, label, label, function, arguments, taken, resources, folder)
        self.rename(call)
        return call

    def push(self, rundir: RunDir, constants: Mapping[str, Any]) -> None:
        """Write constants into a run's folder, for later calls of functions that take them."""
        for name, value in constants.items():
            try:
                digest = self._digests.digest(value)
                with self.own.by_value():
                    data = dumps({}, 4) + pickle_value(value, self.own)
            except Exception as error:
                raise WorkflowError(f"push: {name}: cannot be sent to a node: {error}") from error
            rundir.create()
            rundir.pushed.mkdir(exist_ok=True, mode=0o700)
            file = rundir.pushed / f"{digest.hex()}.pkl"
            if not file.exists():
                write_whole(file, data)
            self._constants[name] = Pushed(f"{file.parent.name}/{file.name}")

    def rename(self, call: Call) -> None:
        """Put a number behind a call's label until no call of this client has it."""
        taken, wanted = self._labels[call.node], (call.node, call.wanted)
        while call.label.casefold() in taken:
            self._numbers[wanted] += 1
            call.label = f"{call.wanted}-{self._numbers[wanted]}"
        taken.add(call.label.casefold())

    def _interface(
        self, interface: Any, named: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any], TaskOptions]:
        """Take an interface of nipype as a function in a folder of its own."""
        from hpcpipe.interfaces import make_call

        call, named, resources = make_call(type(interface).__name__.lower(), interface, named)
        _, call = self._interfaces.setdefault(id(interface), (interface, call))
        return call, named, TaskOptions(resources, True)

    def _node(self, function: Callable[..., Any]) -> str:
        """Name the node of a function: as it is called, numbered where another one is."""
        if not callable(function):
            raise WorkflowError(f"submit({function!r}): not a function")
        known = self._nodes.get(id(function))
        if known is None:
            check_callable(function, self.own)
            digest = self._identity(function)
            said = getattr(function, "__name__", type(function).__name__)
            wanted = re.sub(r"[^A-Za-z0-9_]", "", said)[:50].lstrip("0123456789") or "call"
            name, count = wanted, 1
            while self._functions.setdefault(name, digest) != digest:
                count += 1
                name = f"{wanted}-{count}"
            known = self._nodes[id(function)] = function, name
        return known[1]

    def _identity(self, function: Callable[..., Any]) -> bytes:
        """Digest what tells two functions apart; of an installed one the key holds but the name."""
        parts = [function, *(getattr(function, name, None) for name in _TELLING)]
        cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        return combine(*map(self._digests.digest, (*parts, cells)))


def _read(
    function: Callable[..., Any],
    positional: tuple[Any, ...],
    named: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Hold arguments against a function's parameters; give them, and the constants it takes.

    Paths are made absolute, as the task may run in a folder of its own. Raises WorkflowError where
    the function would not take the arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = inspect.Signature()  # a builtin that does not tell; the call itself will
    parameters = signature.parameters
    hints = getattr(function, "__annotations__", {})

    def absolute(name: str, value: Any) -> Any:
        a_file = hints.get(name) in (Path, "Path", "pathlib.Path") and isinstance(value, str)
        return Path(os.path.abspath(value)) if a_file or isinstance(value, Path) else value

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
