"""Values that are elsewhere or still to come, when a task that needs them is written down.

They are pickled as the call that loads them, on the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcpipe import outcome


class Upstream:
    """A value still to come: pickled as the call that loads it on the node."""

    def __init__(self, path: str, select: tuple[Any, ...]) -> None:
        self.path, self.select = path, select

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_value, (self.path, self.select)


class Gathered:
    """Values still to come, of many tasks of one node."""

    def __init__(
        self, folder: str, keys: bytes, select: tuple[Any, ...], packed: Sequence[str]
    ) -> None:
        self.folder, self.keys, self.select, self.packed = folder, keys, select, packed

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_values, (self.folder, self.keys, self.select, self.packed)


class Pushed:
    """A constant that a client wrote into the run's folder once, whatever the number of tasks.

    ``file`` is relative to where tasks start, so that a key does not depend on the folder.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return outcome.load_value, (self.file,)
