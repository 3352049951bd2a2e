"""What a task may be called: names that are good as file names and can be pasted into any shell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from numbers import Number
from unicodedata import normalize

MAX_BYTES = 80  # two labels and their axes' names must fit in one file name of 255 bytes

_UNSAFE = re.compile(r"[^\w.+=-]")
_BAD_START = re.compile(r"[-.=]")  # an option, a hidden file; zsh reads =word as a command's path
_FILE = re.compile(r"(?P<stem>.+?)\.[a-z]\w{0,7}(?:\.(?:gz|bz2|xz|zst))?", re.DOTALL | re.I)


def labels_for(values: Sequence[object]) -> tuple[str, ...]:
    """Name every value: a path by its file's stem, numbers and text by themselves, tuples by parts.

    Anything else is named by its place, from 1. Doubles get ``-2``, ``-3``, … in their order;
    ``A`` and ``a`` count as doubles, since some file systems make them one file.
    """
    width = len(str(len(values)))
    wanted = [
        _cut(_clean(_text(value) or "")) or f"{place:0{width}}"
        for place, value in enumerate(values, 1)
    ]
    return tuple(_unique(wanted))


def labels_for_rows(rows: Sequence[tuple[object, ...]]) -> tuple[str, ...]:
    """Name rows of equal length by as few of their first values as tell them apart.

    By the subject alone where each has one row; by subject and session where it has more.
    """
    for width in range(1, len(rows[0]) + 1 if rows else 1):
        heads = [row[:width] for row in rows]
        if len(set(heads)) == len(heads):
            return labels_for(heads)
    return labels_for([row[:1] for row in rows])


def check_label(text: str) -> None:
    """Raise ValueError, naming the character, unless a label given by the user is safe."""
    if not text:
        raise ValueError("a label cannot be empty")
    if bad := _UNSAFE.search(text):
        raise ValueError(
            f"label {text!r} has {bad[0]!r} in it; use letters, digits and _ . + = - only"
        )
    if _BAD_START.match(text):
        raise ValueError(f"label {text!r} starts with {text[0]!r}; start with a letter or a digit")
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(
            f"label {text!r} has {len(text.encode())} bytes; a label can have {MAX_BYTES}"
        )


def _text(value: object) -> str | None:
    """Read a value as a name, or None where it has none that a person would know."""
    if isinstance(value, str | os.PathLike):
        return stem(os.fsdecode(value))
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, tuple):
        parts = [_text(part) for part in value]
        return "_".join(part for part in parts if part) if None not in parts else None
    return None


def stem(text: str) -> str:
    """Strip folders and a suffix: ``T1/SAD07.nii.gz`` → ``SAD07``; ``0.5`` has no suffix."""
    name = text.rstrip("/").rpartition("/")[2]
    file = _FILE.fullmatch(name)
    return file["stem"] if file else name


def _clean(text: str) -> str:
    # Composed first: an accent of its own is no letter and would become "_".
    label = _UNSAFE.sub("_", normalize("NFC", text))
    return "_" + label[1:] if _BAD_START.match(label) else label


def _cut(label: str, size: int = MAX_BYTES) -> str:
    return label.encode()[:size].decode(errors="ignore")


def _unique(wanted: Sequence[str]) -> Iterator[str]:
    """Give each name to the first that wants it, and a number of its own to every other."""
    taken = {label.casefold() for label in wanted}
    given: dict[str, int] = {}
    for label in wanted:
        count = given.get(label.casefold(), 0) + 1
        unique = label
        while count > 1 and (unique := _numbered(label, count)).casefold() in taken:
            count += 1
        given[label.casefold()] = count
        taken.add(unique.casefold())
        yield unique


def _numbered(label: str, count: int) -> str:
    suffix = f"-{count}"
    return _cut(label, MAX_BYTES - len(suffix)) + suffix
