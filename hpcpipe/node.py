"""The vertices of a workflow: calls, what they need, and the values that flow between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from hpcpipe.axes import Axis, Edge, size
from hpcpipe.errors import ConfigError, WorkflowError, near
from hpcpipe.model import Resources

if TYPE_CHECKING:
    from hpcpipe.command import Command

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
    """Say what calls of a function need: ``@task(cpus=1, memory="2G", time="30m")``.

    The function stays a plain function. ``folder=True`` gives every call a working folder of its
    own; it is the default where the function is annotated to return a `Path`. Also ``gpus``,
    ``queue``, ``account``, ``scratch``, ``pack``, ``throttle``; ``requires="rhel9 avx512"``,
    ``software=["fsl>=6", "spm12"]``, and ``prefer="soonest"`` or ``"cheapest"``, by which the site
    chooses the queue. Raises WorkflowError where one cannot be read.
    """

    def mark(marked: F) -> F:
        options = TaskOptions(
            read_resources(resources, getattr(marked, "__qualname__", "task")), folder
        )
        marked.__hpcpipe__ = options  # type: ignore[attr-defined]
        return marked

    return mark if function is None else mark(function)


def read_resources(said: Mapping[str, Any], where: str) -> Resources:
    """Read resources as `task` takes them; raises WorkflowError naming ``where``."""
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

    ``output["brain"]`` and ``output[0]`` lead to a part; ``gather`` folds axes into a list.
    """

    node: Node
    select: tuple[Any, ...] = ()
    gathered: tuple[str, ...] = ()

    def __getitem__(self, part: str | int) -> Output:
        names = getattr(self.node.call, "output_names", None)  # of a call that says
        if names is not None and not self.select and part not in names:
            known = near(str(part), names)
            raise WorkflowError(f"{self.node.name}: no output {part!r}{known}")
        return Output(self.node, (*self.select, part), self.gathered)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self.node.name}: take its parts by name or position, as in node[0]")

    def gather(self, *axes: str) -> Output:
        """Take the values along these axes (all of them if none is named) as one list.

        The list runs in the axes' own order, the last one fastest. Raises WorkflowError where the
        node has no such axis.
        """
        have = [axis.name for axis in self.node.axes]
        for name in axes:
            if name not in have:
                raise WorkflowError(
                    f"{self.node.name}.gather({name!r}): no such axis{near(name, have)}"
                )
        axes = (*self.gathered, *axes) if axes else tuple(have)
        chosen = tuple(name for name in have if name in axes)
        if not chosen:
            raise WorkflowError(f"{self.node.name}.gather(): it has no axis to gather over")
        return Output(self.node, self.select, chosen)


@dataclass(frozen=True, eq=False)
class Node:
    """One vertex: a call, its arguments, and the axes it is mapped over."""

    name: str
    call: Callable[..., Any] | Command
    arguments: Mapping[str, Any]
    axes: tuple[Axis, ...]
    resources: Resources
    folder: bool
    after: tuple[Output, ...] = ()
    links: tuple[Edge, ...] = ()  # tasks of other nodes to wait for, one by one
    seconds: Sequence[float] | None = None  # how long each task is thought to take
    fuse: bool = False  # a start costs much: run in the element of the node above, if it may
    done: Collection[int] = ()  # tasks known to be done, whether or not we have their outcome

    def __getitem__(self, part: str | int) -> Output:
        return Output(self)[part]

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self.name}: take its parts by name or position, as in node[0]")

    def gather(self, *axes: str) -> Output:
        """Take the values along these axes (all if none is named) as one list."""
        return Output(self).gather(*axes)

    @property
    def size(self) -> int:
        """How many tasks the node has."""
        return size(self.axes)

    @property
    def upstreams(self) -> tuple[Output, ...]:
        """Every output of another node that this one waits for."""
        return (*references(self.arguments.values()), *self.after)


def references(values: Iterable[Any]) -> Iterator[Output]:
    """Find the outputs among values, also within lists, tuples and mappings."""
    return (value for value in leaves(values) if isinstance(value, Output))


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Give the values within values, also within lists, tuples and mappings."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        elif isinstance(value, Mapping):
            yield from leaves(value.values())
        else:
            yield value


def check_name(name: str, what: str) -> str:
    """Give back a name that can be a folder and a job's; raises WorkflowError for any other."""
    if not _NAME.fullmatch(name):
        raise WorkflowError(
            f"{what} name {name!r}: start with a letter, then letters, digits and _ . - only "
            f"(it becomes a folder and a job name){'; give name=' if what == 'node' else ''}"
        )
    return name
