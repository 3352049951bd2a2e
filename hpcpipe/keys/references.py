"""Values that are elsewhere or still to come, in the arguments of a task.

They are pickled as the call that loads them on the node. A value still to come is named by the edge
it comes along: where it lies is known only when a batch is submitted.
"""

from __future__ import annotations

from typing import Any

from hpcpipe.keys.digest import Keyed
from hpcpipe.worker import outcome


class Upstream:
    """A value still to come, of one task."""

    def __init__(self, edge: int, select: tuple[Any, ...]) -> None:
        self.facts = edge, select

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_upstream, self.facts


class Gathered:
    """Values still to come, of many tasks of one node."""

    def __init__(self, edge: int, select: tuple[Any, ...]) -> None:
        self.facts = edge, select

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_upstreams, self.facts


class Part:
    """A part of a value still to come, of one task: which, its row in a task file says."""

    def __init__(self, edge: int, select: tuple[Any, ...]) -> None:
        self.facts = edge, select

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_part, self.facts


class Number(Keyed):
    """Which element of a list a task is for, where the task knows where that list is."""

    def __init__(self) -> None:
        super().__init__("number")

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_number, ()


class Folder:
    """The working folder of a command whose label is still to come."""

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_folder, ()


class Pushed:
    """A constant that a client wrote into the run's folder once, whatever the number of tasks.

    ``file`` is relative to where tasks start, so that a key does not depend on the folder.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_value, (self.file,)
