"""Task labels: names that are valid file names and can be pasted into any shell.

A label is made from its value alone, so that the tasks of a study keep their names whatever is
added to it: ``SAD01`` from ``T1/SAD01.nii``, and from ``SAD01/T1.nii``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from hashlib import blake2b
from numbers import Number
from unicodedata import normalize

from hpcpipe.graph.loading import user_folder

MAX_BYTES = 80  # two labels and their axes' names must fit in one file name of 255 bytes

_PARTS = 4  # of a row or tuple, these many values name it: subject, session, task, run
_LINE = 32  # bytes of a command line that is its own label; of a longer one, the end is shown
_NUMBERS = frozenset((int, float, bool))  # isinstance(…, Number) takes five times as long
_UNSAFE = re.compile(r"[^\w.+=-]")
_SAFE = re.compile(r"\w[\w.+=-]*", re.ASCII)  # as it is, then, a label
_BAD_START = re.compile(r"[-.=]")  # an option, a hidden file; zsh reads =word as a command's path
_FILE = re.compile(r"(?P<stem>.+?)\.[a-z]\w{0,7}(?:\.(?:gz|bz2|xz|zst))?", re.DOTALL | re.I)
# Names of files and folders that are the same for every subject …
_COMMON = re.compile(
    r"(t[12]|pd|t2star|bold|dwi|asl|epi|flair)w?|dti|anat|func|fmap|perf|meg|eeg|pet|f?mri|smri"
    r"|struct(ural)?|functional|rest|mp2?rage|images?|img|scans?|brain|mask|mean|volume"
    r"|data(set)?|raw(data)?|nii|nifti|bids|derivatives|inputs?|files|subjects|participants|tmp",
    re.I,
)
# … and those that distinguish the files of one subject.
_COLUMN = re.compile(  # … as columns of a table
    r"(ses|session|visit|wave|timepoint|tp|task|acq|rec|dir|run|echo|scan|series)(_?(id|label))?",
    re.I,
)
_WITHIN = re.compile(
    r"(ses|session|visit|wave|tp|task|acq|rec|dir|run|echo|scan|series|vol)([-_][a-z0-9]+|\d+)"
    r"|pre|post|baseline|follow-?up\d*|\d",
    re.I,
)


def labels_for(
    values: Sequence[object], name: Callable[[object], str] | None = None
) -> tuple[str, ...]:
    """Return a label for each value: ``name``'s, `label_of` by default.

    Different values of the same label get that of their folder, too (``T1_SAD01``), are spelled
    out (``T1_SAD01.nii``), or get six digits of a digest; equal values get ``-2``, ``-3``, ….
    ``A`` and ``a`` count as the same, because some file systems do not distinguish them.
    """
    return _distinct(values, (name or label_of, _with_folder, _spelled, long_label))


def labels_for_rows(
    rows: Sequence[tuple[object, ...]], columns: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return a label for each row of a table: its first value, and its session, run, ….

    ``columns`` are the names of the values, by which the latter are found.
    """
    shown = [at for at, name in enumerate(columns) if at and _COLUMN.fullmatch(name)]
    return labels_for(rows, lambda row: label_of(tuple(row[at] for at in (0, *shown))))  # type: ignore[index]


def folders_for(values: Sequence[object]) -> tuple[str, ...]:
    """Return a folder name for each value: its label, with a digest unless the two are the same.

    Unlike labels, these never change when other values come or go: results are found by them. Nor
    do they if a study moves as a whole: paths below the workflow's file are taken relative to it.
    """
    root = f"{user_folder()}/"
    return _distinct([_below(root, value) for value in values], (_folder_of, long_label))


def label_of(value: object) -> str:
    """Return the label that a value has by itself.

    For a path, what names the subject; for text and numbers, these; for rows and mappings, their
    parts; for anything else, its type and a digest.
    """
    text = _text(value)
    return (_cut(_clean(text)) if text else "") or long_label(value)


def label_of_line(line: object) -> str:
    """Return the label of a command line: the line, or its end and a digest."""
    text = _clean(re.sub(r"[^\w.+=/-]+", " ", str(line)).strip().replace("/", "_"))
    if len(text.encode()) <= _LINE and text:
        return text
    end = text[-_LINE * 3 // 4 :]
    return _clean(end.partition("_")[2] or end) + f"-{_digest(line)}"


def label_of_id(value: object) -> str:
    """Return the label of what names a task already: all of it, or its end and a digest."""
    text = _clean("_".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return text if len(text.encode()) <= MAX_BYTES else f"{text[-_LINE:]}-{_digest(value)}"


def check_label(text: str) -> None:
    """Raise ValueError, naming the character, if a label given by the user is not safe."""
    if not text:
        raise ValueError("a label cannot be empty")
    if bad := _UNSAFE.search(text):
        raise ValueError(
            f"label {text!r} contains {bad[0]!r}; use letters, digits and _ . + = - only"
        )
    if _BAD_START.match(text):
        raise ValueError(f"label {text!r} starts with {text[0]!r}; start with a letter or a digit")
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"label {text!r} has {len(text.encode())} bytes; the most is {MAX_BYTES}")


def stem(text: str) -> str:
    """Strip folders and a suffix: ``T1/SAD07.nii.gz`` → ``SAD07``; ``0.5`` has no suffix."""
    name = text.rstrip("/").rpartition("/")[2]
    file = _FILE.fullmatch(name)
    return file["stem"] if file else name


def _text(value: object) -> str | None:
    """Return a value as a name, or None if it has no name that people would recognise."""
    if type(value) in _NUMBERS:
        return str(value)
    if isinstance(value, str | os.PathLike):
        return _subject(os.fsdecode(value))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Number) or value is None:
        return str(value)
    if isinstance(value, tuple | list):
        parts = [_text(part) for part in value[:_PARTS]]
        if None in parts:
            return None
        if any("/" in os.fsdecode(v) for v in value if isinstance(v, str | os.PathLike)):
            parts = list(dict.fromkeys(parts))  # several files of one subject
        return "_".join(part for part in parts if part)
    if isinstance(value, Mapping):
        named = {str(key): _text(item) for key, item in value.items()}
        known = None not in named.values()
        return "_".join(f"{key}={named[key]}" for key in sorted(named)) if known else None
    return getattr(value, "__name__", None)


def _subject(path: str) -> str:
    """Return what in a path names the subject: the stem, or else the folders that do."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if not parts:
        return path
    parts[-1] = stem(parts[-1])
    kept: list[str] = []
    for part in reversed(parts):
        if not _COMMON.fullmatch(part):
            kept.append(part)
            if not _WITHIN.fullmatch(part):
                break
    subject = next((part for part in reversed(parts) if part.startswith("sub-")), "")
    if subject and not any(subject in part for part in kept):
        kept.append(subject)
    return "_".join(reversed(kept)) or parts[-1]


def _clean(text: str) -> str:
    if _SAFE.fullmatch(text):
        return text
    # Composed first: a separate combining accent is not a letter and would become "_".
    label = _UNSAFE.sub("_", normalize("NFC", text))
    return "_" + label[1:] if _BAD_START.match(label) else label


def _cut(label: str, size: int = MAX_BYTES) -> str:
    if len(label) * 4 <= size:  # bytes that a character has at most
        return label
    return label.encode()[:size].decode(errors="ignore")


def _with_folder(value: object) -> str:
    """Return the label of a file with its folder's name: ``T1_SAD01``."""
    if not isinstance(value, str | os.PathLike):
        return label_of(value)
    parts = os.fsdecode(value).rstrip("/").split("/")[-2:]
    return _cut(_clean("_".join([*filter(None, parts[:-1]), stem(parts[-1])]))) or label_of(value)


def _spelled(value: object) -> str:
    """Return all of a value as a label: ``T1_SAD01.nii``."""
    if isinstance(value, tuple | list):
        return _cut("_".join(map(_spelled, value)))
    text = os.fsdecode(value) if isinstance(value, str | os.PathLike) else _text(value)
    return _cut(_clean((text or "").lstrip("./"))) or long_label(value)


def _below(root: str, value: object) -> object:
    """Return a value with the paths below a folder relative to it."""
    if type(value) in _NUMBERS:
        return value
    if isinstance(value, str | os.PathLike):
        return os.fsdecode(value).removeprefix(root)
    if type(value) in (list, tuple):
        return [_below(root, one) for one in value]  # type: ignore[attr-defined]
    return value


def _folder_of(value: object) -> str:
    label = label_of(value)
    exact = isinstance(value, str | int | float | Number) and label == str(value)
    return label if exact else long_label(value)


def long_label(value: object) -> str:
    """Return a label that no other value has: with six digits of a digest."""
    text = _text(value) or type(value).__name__
    return f"{_cut(_clean(text), MAX_BYTES - 7)}-{_digest(value)}"


def _digest(value: object) -> str:
    try:
        whole = _whole(value)
    except RecursionError:
        whole = type(value).__qualname__
    return blake2b(whole.encode(errors="surrogatepass"), digest_size=3).hexdigest()


def _whole(value: object) -> str:
    """Write a value down so that different ones differ, in every process alike."""
    kind = type(value).__qualname__
    if isinstance(value, str | os.PathLike):
        return repr(os.fsdecode(value))
    if isinstance(value, Mapping):
        return f"{kind}{sorted((_whole(key), _whole(item)) for key, item in value.items())}"
    if isinstance(value, set | frozenset):
        return f"{kind}{sorted(map(_whole, value))}"
    if isinstance(value, list | tuple):
        return f"{kind}{[*map(_whole, value)]}"
    if isinstance(value, Number | Enum | bytes) or value is None:
        return f"{kind}:{value!r}"
    if callable(value):
        return f"{kind}:{getattr(value, '__qualname__', '')}"
    try:
        return f"{kind}{_whole(value.__reduce_ex__(4)[1:3])}"  # no module: it may be __main__
    except Exception:  # nothing tells it from others of its kind: they are numbered
        return kind


def _distinct(
    values: Sequence[object], forms: Sequence[Callable[[object], str]]
) -> tuple[str, ...]:
    """Name each value by the first form that distinguishes it from all different values."""
    named = [forms[0](value) for value in values]
    for form in forms[1:]:
        for places in _clashing(named):
            if len({_whole(values[at]) for at in places}) > 1:
                for at in places:
                    named[at] = form(values[at])
    taken = {name.casefold() for name in named}
    for places in _clashing(named):
        count = 1
        for at in places[1:]:
            count += 1
            while (name := _numbered(named[at], count)).casefold() in taken:
                count += 1
            taken.add(name.casefold())
            named[at] = name
    return tuple(named)


def _clashing(named: Sequence[str]) -> list[list[int]]:
    """Return the places of names that occur more than once."""
    folded = [name.casefold() for name in named]
    if len(set(folded)) == len(folded):
        return []
    groups: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(folded):
        groups[name].append(at)
    return [places for places in groups.values() if len(places) > 1]


def _numbered(label: str, count: int) -> str:
    suffix = f"-{count}"
    return _cut(label, MAX_BYTES - len(suffix)) + suffix
