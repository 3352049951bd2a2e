"""What a function returns on a node: text counts as a path where its annotation says so.

Imports next to nothing before there is such text, as every element would pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple


class ReturnsFiles(NamedTuple):
    """A function whose annotation says that it returns files: ``-> list[Path]``, for example.

    Many return text for these, as from ``glob``. It would be of no folder, and nobody would look
    whether such files exist.
    """

    function: Callable[..., Any]

    def __call__(self, **arguments: Any) -> Any:
        """Call the function, and make paths of the text that should be."""
        value = self.function(**arguments)
        if not _may_hold_text(value):
            return value
        from hpcpipe.graph.hints import as_files, hint_of

        return as_files(value, hint_of(self.function, "return"))


def _may_hold_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_may_hold_text, value.values()))
    if type(value) in (list, tuple, set, frozenset):
        return any(map(_may_hold_text, value))
    return value is not None and not isinstance(value, os.PathLike | int | float)
