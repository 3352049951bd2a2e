"""How long the lists are that others are mapped over; imported only by tasks that return some."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class NoList(Exception):
    """A task returned something else where others are mapped over a list."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def measure(value: Any, mapped: Mapping[tuple[Any, ...], str]) -> dict[tuple[Any, ...], int]:
    """Return the lengths of parts of a value, each of which a node is mapped over."""
    return {select: length(value, select, node) for select, node in mapped.items()}


def length(value: Any, select: tuple[Any, ...], node: str) -> int:
    """Return the length of a part of a value that a node is mapped over, or raise NoList."""
    for step in select:
        try:
            value = value[step]
        except Exception:
            raise NoList(
                f"it returned a {type(value).__qualname__} without {step!r}, which {node} is "
                "mapped over"
            ) from None
    listed = hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))
    try:
        if listed:
            return len(value)
    except TypeError:
        pass  # as a numpy array without a dimension
    raise NoList(
        f"it returned a {type(value).__qualname__}, which is no list that {node} can be mapped over"
    )
