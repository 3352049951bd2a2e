"""The vertices of a workflow: calls, their resources, and the values that flow between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from hpcpipe.errors import ConfigError, WorkflowError, near
from hpcpipe.graph.axes import Axis, Edge, size
from hpcpipe.resources import Resources

if TYPE_CHECKING:
    from hpcpipe.graph.command import Command

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class TaskOptions:
    """What `task` attaches to a function."""

    resources: Resources
    folder: bool | None


@overload
def task(function: F, /) -> F: ...
@overload
def task(*, folder: bool | None = None, **resources: Any) -> Callable[[F], F]: ...
def task(function: Any = None, /, *, folder: bool | None = None, **resources: Any) -> Any:
    """Set what calls of a function need: ``@task(cpus=1, memory="2G", time="30m")``.

    The function stays a plain function. ``folder=True`` runs every call in its own working folder;
    this is the default for a function annotated to return a `Path`. Other resources are ``gpus``,
    ``queue``, ``account``, ``scratch``, ``pack``, ``throttle``; the queue is chosen by
    ``requires="rhel9 avx512"``, ``software=["fsl>=6", "spm12"]``, and ``prefer="soonest"`` or
    ``"cheapest"``. With ``retries=2`` what fails is retried in the queue, as ``retry_if``,
    ``on_memory`` and ``on_time`` say; with ``checkpoint="USR1@5m"`` it gets a signal ahead of its
    time limit; see ``docs/retries.rst``. Raises WorkflowError for a value that cannot be read.
    """

    def mark(marked: F) -> F:
        options = TaskOptions(
            read_resources(resources, getattr(marked, "__qualname__", "task")), folder
        )
        marked.__hpcpipe__ = options  # type: ignore[attr-defined]
        return marked

    return mark if function is None else mark(function)


def read_resources(said: Mapping[str, Any], where: str) -> Resources:
    """Parse resources as `task` takes them; raise WorkflowError naming ``where``."""
    known = Resources._fields
    for name in said:
        if name not in known:
            raise WorkflowError(f"{where}: unknown resource {name!r}{near(name, known)}")
    try:
        return Resources.parse(**said)
    except ConfigError as error:
        raise WorkflowError(f"{where}: {error}") from error


@dataclass(frozen=True, eq=False)
class Output:
    """The value of a node, or a part of it, as the input of another.

    ``output["brain"]`` and ``output[0]`` lead to a part; ``gather`` folds axes into a list; `each`
    maps a node over the list that the value is.
    """

    node: Node
    select: tuple[Any, ...] = ()
    gathered: tuple[str, ...] = ()
    least: float | None = None  # gathered: the part that is enough, if not all is needed
    along: str | None = None  # the axis it is mapped over; "" until named after the argument

    def __getitem__(self, part: str | int) -> Output:
        if self.along is not None:
            raise WorkflowError(f"each({self.node.name}): select before: each(node[{part!r}])")
        names = getattr(self.node.call, "output_names", None)  # if the call knows them
        if names is not None and not self.select and part not in names:
            known = near(str(part), names)
            raise WorkflowError(f"{self.node.name}: no output {part!r}{known}")
        return replace(self, select=(*self.select, part))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self.node.name}: take its parts by name or position, as in node[0]")

    def gather(
        self, *axes: str, missing: str | None = None, at_least: float | None = None
    ) -> Output:
        """Return the values along these axes (by default all) as one list.

        The list is in the order of the axes, the last one fastest. With ``missing="skip"`` it has
        the values of those tasks that succeed, if these are one or more, and ``at_least`` this part
        of all, as in 0.9. Raises WorkflowError if the node has no such axis.
        """
        have = [axis.name for axis in self.node.axes]
        for name in axes:
            if name not in have:
                raise WorkflowError(
                    f"{self.node.name}.gather({name!r}): no such axis{near(name, have)}"
                )
        axes = (*self.gathered, *axes) if axes else tuple(have)
        least = self.least if missing is None and at_least is None else _least(missing, at_least)
        chosen = tuple(name for name in have if name in axes)
        if not chosen:
            raise WorkflowError(f"{self.node.name}.gather(): the node has no axis to gather over")
        return Output(self.node, self.select, chosen, least)


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """One vertex: a call, its arguments, and the axes it is mapped over."""

    name: str
    call: Callable[..., Any] | Command
    arguments: Mapping[str, Any]
    axes: tuple[Axis, ...]
    resources: Resources
    folder: bool
    after: tuple[Output, ...] = ()
    links: tuple[Edge, ...] = ()  # tasks of other nodes to wait for, one by one; of nodes that
    # grow, all that a place on the axes of known length becomes
    seconds: Sequence[float] | None = None  # expected run time of each task
    fuse: bool = False  # starting costs much: run in the element of the node above if possible
    done: Collection[int] = ()  # tasks known to be done, even without an outcome of ours
    grows: bool = False  # only at run time is known how many tasks it has, or one upstream

    def __repr__(self) -> str:
        """Name the node and its axes, without their values."""
        axes = " x ".join(f"{axis.name}({'?' if axis.source else len(axis)})" for axis in self.axes)
        return f"<Node {self.name!r}: {axes or 'one task'}>"

    def __getitem__(self, part: str | int) -> Output:
        return Output(self)[part]

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self.name}: take its parts by name or position, as in node[0]")

    def gather(
        self, *axes: str, missing: str | None = None, at_least: float | None = None
    ) -> Output:
        """Return the values along these axes (by default all) as one list; see `Output.gather`."""
        return Output(self).gather(*axes, missing=missing, at_least=at_least)

    @property
    def size(self) -> int:
        """The number of tasks of the node."""
        return size(self.axes)

    @property
    def upstreams(self) -> tuple[Output, ...]:
        """The outputs of other nodes that this one waits for."""
        return (*references(self.arguments.values()), *self.after)


def _least(missing: str | None, at_least: float | None) -> float | None:
    """Return the part of tasks that is enough; None if all are needed."""
    if missing not in (None, "skip"):
        raise WorkflowError(f"gather(missing={missing!r}): leave it out, or write missing='skip'")
    if at_least is not None and (missing is None or not 0 < at_least <= 1):
        raise WorkflowError(
            f"gather(at_least={at_least!r}): write missing='skip', and a part of all such as 0.9"
        )
    return None if missing is None else at_least or 0.0


def references(values: Iterable[Any]) -> Iterator[Output]:
    """Yield the outputs among values, also within lists, tuples and mappings."""
    return (value for value in leaves(values) if isinstance(value, Output))


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the leaves of values that may be nested in lists, tuples and mappings."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        elif isinstance(value, Mapping):
            yield from leaves(value.values())
        else:
            yield value


def check_name(name: str, what: str) -> str:
    """Return a name that is valid for folders and jobs; raise WorkflowError for any other."""
    if not _NAME.fullmatch(name):
        raise WorkflowError(
            f"{what} name {name!r}: start with a letter, then letters, digits and _ . - only "
            f"(it becomes a folder and a job name){'; give name=' if what == 'node' else ''}"
        )
    return name
