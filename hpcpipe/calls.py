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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from pickle import dumps
from typing import Any

from hpcpipe.axes import Axis
from hpcpipe.byvalue import Applied
from hpcpipe.digest import Digests
from hpcpipe.draft import draft, scheduler_options
from hpcpipe.errors import UsageError, WorkflowError
from hpcpipe.files import SIZE, Files, combine
from hpcpipe.functions import Own, check_callable, is_installed, pickle_value
from hpcpipe.labels import labels_for
from hpcpipe.ledger import Ledger
from hpcpipe.mapped import Each
from hpcpipe.model import Resources
from hpcpipe.node import Node, TaskOptions
from hpcpipe.pending import Pushed
from hpcpipe.plan import make_plan
from hpcpipe.record import DIRECT, NodeRecord, read_record
from hpcpipe.rundir import RunDir, write_whole
from hpcpipe.schedulers import make_scheduler
from hpcpipe.site import Site
from hpcpipe.status import make_report
from hpcpipe.submit import adopt, submit_draft
from hpcpipe.workflow import Workflow, returns_path

AXIS = "call"
_ARGUMENT = "hpcpipe_call"  # of `hpcpipe.byvalue.Applied`
_TELLING = ("__code__", "__defaults__", "__kwdefaults__")
_PATIENCE = 60.0  # seconds to wait for other clients that submit to the same run


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
        self._functions: dict[str, bytes] = {}  # by node, its digest
        self._constants: dict[str, Pushed] = {}
        self._labels: dict[str, set[str]] = defaultdict(set)  # by node, for all file systems

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
        node = self._node(function)
        arguments, taken = _read(function, positional, named, self._constants)
        label = _label((*positional, *named.values())) or str(len(self._labels[node]) + 1)
        options = getattr(function, "__hpcpipe__", TaskOptions(Resources(), None))
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
            file = rundir.pushed / f"{digest.hex()}.pkl"
            if not file.exists():
                write_whole(file, data)
            self._constants[name] = Pushed(f"{file.parent.name}/{file.name}")

    def rename(self, call: Call) -> None:
        """Put a number behind a call's label until no call of this client has it."""
        taken, count = self._labels[call.node], 1
        while call.label.casefold() in taken:
            count += 1
            call.label = f"{call.wanted}-{count}"
        taken.add(call.label.casefold())

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


# --- submitting -----------------------------------------------------------------------------------


def first_group(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Part calls into those of the next submission, of every function what goes with its first
    call, and those left for later."""
    first: dict[str, Call] = {}
    parts: tuple[list[Call], list[Call]] = [], []
    for call in calls:
        parts[not call.goes_with(first.setdefault(call.node, call))].append(call)
    return parts


def submit_calls(
    calls: Sequence[Call], made: Calls, rundir: RunDir, site: Site, site_file: str
) -> None:
    """Hand calls over: one array a function, under the run's lock.

    Raises WorkflowError, ConfigError, SchedulerError, LockHeld; UsageError where the folder is a
    workflow's, whose nodes are not calls.
    """
    if not rundir.exists:
        draft(_workflow(calls, made, rundir), site)  # what fails so leaves nothing behind
    rundir.create()
    with rundir.lock(_PATIENCE):
        adopt(rundir, make_scheduler(site.scheduler, scheduler_options(site)))
        _keep_apart(calls, made, rundir)
        drafted = draft(_workflow(calls, made, rundir), site)
        submit_draft(drafted, {DIRECT: True}, site_file)


def nodes_so_far(rundir: RunDir) -> Mapping[str, NodeRecord]:
    """Give the nodes of a run of calls; raises UsageError where it is that of a workflow."""
    runs = Ledger(rundir.ledger).read().runs
    if not runs:
        return {}
    record = read_record(rundir, runs[-1]["run"])
    if DIRECT not in record.source:
        raise UsageError(
            f"{rundir.folder}: the run of a workflow; give the executor another name or base_dir"
        )
    return record.nodes


def _workflow(calls: Sequence[Call], made: Calls, rundir: RunDir) -> Workflow:
    workflow = Workflow(rundir.folder.name, rundir.folder.parent, source=made.source)
    by_node: dict[str, list[Call]] = {}
    for call in calls:
        by_node.setdefault(call.node, []).append(call)
    for name, some in by_node.items():
        axis = Axis(AXIS, tuple(call.label for call in some))
        rows = Each([call.arguments for call in some], axis, axis.labels)
        first = some[0]
        inputs = {_ARGUMENT: rows, **first.constants}
        applied, resources = Applied(first.function), first.resources
        workflow.nodes[name] = Node(name, applied, inputs, (axis,), resources, first.folder)
    return workflow


def _keep_apart(calls: Sequence[Call], made: Calls, rundir: RunDir) -> None:
    """Rename the calls whose name another client gave to another call that is good or under way.

    One that went wrong is replaced: nobody waits for it any more.
    """
    labels = {name: dict(node.by_label()) for name, node in nodes_so_far(rundir).items()}
    clashing = [call for call in calls if call.label in labels.get(call.node, ())]
    if not clashing:
        return
    bad = {(t.node, t.label) for t in make_report(rundir).failures}
    files = Files()
    while clashing:
        nodes = make_plan(_workflow(clashing, made, rundir), files=files).nodes
        keys = {
            (name, label): node.keys[at * SIZE : at * SIZE + SIZE]
            for name, node in nodes.items()
            for at, label in enumerate(node.node.axes[0].labels)
        }
        clashing = [
            call
            for call in clashing
            if labels[call.node].get(call.label) not in (None, keys[call.node, call.label])
            and (call.node, call.label) not in bad
        ]
        for call in clashing:
            made.rename(call)


def cannot_travel(call: Call, own: Own) -> WorkflowError | None:
    """Say why a call's arguments cannot be sent to a node; None where they can."""
    try:
        with own.by_value():
            pickle_value(call.arguments, own)
            Digests(Files(), own).digest(call.arguments)
    except Exception as error:
        return WorkflowError(f"{call.name}: its arguments cannot be sent to a node: {error}")
    return None
