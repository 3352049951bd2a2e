"""Array indices: fold them into ranges, and read ranges back."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise


def ranges(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Fold ascending integers into inclusive ranges: 0 1 2 5 → (0, 2) (5, 5)."""
    start = last = None
    for index in indices:
        if last is not None and index == last + 1:
            last = index
            continue
        if start is not None and last is not None:
            yield start, last
        start = last = index
    if start is not None and last is not None:
        yield start, last


def fold(indices: Iterable[int]) -> str:
    """Return ascending integers as text: ``0-68`` or ``1,4-7``."""
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(indices))


def parse_indices(text: str) -> Sequence[int]:
    """Parse ``0-999`` or ``1,5,7-9`` compactly, without an object per index.

    Raises ValueError if the text is anything else, or names an index twice.
    """
    runs = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(f"{part!r} is neither an index nor first-last")
        runs.append(range(int(first), int(last or first) + 1))
        if not runs[-1]:
            raise ValueError(f"{part!r} contains no index")
    runs.sort(key=lambda run: run.start)
    if any(after.start < run.stop for run, after in pairwise(runs)):
        raise ValueError("an index is named twice")
    if runs[-1].stop - runs[0].start == sum(map(len, runs)):
        return range(runs[0].start, runs[-1].stop)
    return array("q", (index for run in runs for index in run))
