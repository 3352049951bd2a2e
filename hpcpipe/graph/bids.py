"""The contents of a BIDS data set: subjects, sessions, and images, named by their entities.

Only folders are listed, no file is opened: a study of a thousand subjects takes a moment. Queries
by entities other than subject and session go to ancpbids.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError, near

IMAGES = (".nii.gz", ".nii")
_FOLDERS = {"sub": "subject", "ses": "session"}
_ENTITIES = {
    **_FOLDERS, "task": "task", "acq": "acquisition", "ce": "ceagent", "rec": "reconstruction",
    "dir": "direction", "run": "run", "echo": "echo", "flip": "flip", "inv": "inversion",
    "mt": "mtransfer", "part": "part", "recording": "recording", "space": "space",
    "res": "resolution", "desc": "description", "label": "label",
}  # fmt: skip  # in the order in which they distinguish images


def participants(dataset: str | os.PathLike[str], sessions: bool = False) -> list[tuple[str, ...]]:
    """Return the subjects of a data set, or its (subject, session) pairs, without prefixes.

    Raises WorkflowError if the data set has no subject, or with ``sessions`` one without any.
    """
    subjects = _below(Path(dataset), "sub-")
    if not subjects:
        raise WorkflowError(f"{dataset}: has no folder sub-…; name the root of a BIDS data set")
    if not sessions:
        return [(_value(folder),) for folder in subjects]
    below = {subject: _below(subject, "ses-") for subject in subjects}
    if bare := next((subject for subject in subjects if not below[subject]), None):
        raise WorkflowError(
            f"{bare}: has no folder ses-…, so it has no {{session}}; leave out {{session}} and its "
            "option, or list subjects and sessions yourself, after :::"
        )
    return [(_value(one), _value(session)) for one in subjects for session in below[one]]


def images(
    dataset: str | os.PathLike[str],
    suffix: str,
    extension: str | Sequence[str] = IMAGES,
    **entities: Any,
) -> list[Path]:
    """Return the files with a suffix such as ``T1w`` and these entities, sorted by name.

    Raises WorkflowError if there is none, also of one subject or session among several; the message
    names what there is.
    """
    root = Path(os.path.abspath(dataset))
    ends = (extension,) if isinstance(extension, str) else tuple(extension)
    wanted = {_ENTITIES.get(name, name): _texts(value) for name, value in entities.items()}
    participants(root)  # raises if it is not a data set
    if unknown := wanted.keys() - set(_ENTITIES.values()):
        name = min(unknown)
        raise WorkflowError(f"each.bids: no entity {name!r}{near(name, _ENTITIES.values())}")
    files = list(_scan(root, wanted))
    found = [file for file in files if file.name.endswith(tuple(f"_{suffix}{end}" for end in ends))]
    if wanted.keys() - _FOLDERS.values():
        found = [*set(found) & set(_query(root, suffix, ends, wanted))]
    if not found:
        said = ", ".join(f"{name}={'|'.join(values)}" for name, values in wanted.items())
        with_ = f" with {said}" if said else ""
        kinds = {file.name.split(".")[0].rpartition("_")[2] for file in files}
        other = near(suffix, sorted(kinds)) if suffix not in kinds else ""
        raise WorkflowError(f"{dataset}: no image {suffix!r}{with_}{other}")
    for name in _FOLDERS.values():
        have = {entities_of(file).get(name, "") for file in found}
        if absent := [value for value in wanted.get(name, ()) if value not in have]:
            known = sorted({entities_of(file).get(name, "") for file in _scan(root, {})} - {""})
            raise WorkflowError(
                f"{dataset}: no image {suffix!r} with {name}={absent[0]}{near(absent[0], known)}"
            )
    return sorted(found)


def grouped(
    files: Sequence[Path], per: str | None, one_session: bool = False
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield files with the entities that name them; with ``per``, lists that agree up to it.

    These are the subject, the session unless ``one_session`` was selected, and what differs among
    the files of these. Raises WorkflowError if ``per`` is not an entity.
    """
    order = [*_ENTITIES.values()]
    if per is not None and per not in order:
        raise WorkflowError(f"each.bids: per={per!r}{near(per, order)}")
    first = ["subject"] if one_session else ["subject", "session"]
    rest = [name for name in order if name not in first]
    if per is not None:
        first, rest = [
            [name for name in names if order.index(name) <= order.index(per)]
            for names in (first, rest)
        ]
    lists: dict[tuple[str | None, ...], list[Path]] = {}
    for file in files:
        of = entities_of(file)
        lists.setdefault(tuple(map(of.get, first)), []).append(file)
    for some in lists.values():
        named = [entities_of(file) for file in some]
        names = [*first, *(name for name in rest if _varies(named, name))]
        if per is None:
            yield from ((_row(of, names), file) for of, file in zip(named, some, strict=True))
            continue
        below: dict[tuple[str, ...], list[Path]] = {}
        for of, file in zip(named, some, strict=True):
            below.setdefault(_row(of, names), []).append(file)
        yield from below.items()


def entities_of(file: Path) -> dict[str, str]:
    """Return the entities in a file's name."""
    pairs = (part.partition("-") for part in file.name.split(".")[0].split("_"))
    return {_ENTITIES.get(key, key): value for key, dash, value in pairs if dash}


def _row(of: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(of[name] for name in names if name in of)


def _varies(named: Sequence[Mapping[str, str]], name: str) -> bool:
    return len({of.get(name) for of in named}) > 1


def _below(folder: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.name.startswith(prefix) and e.is_dir())
    except OSError as error:
        raise WorkflowError(f"{folder}: {error.strerror}; name a BIDS data set") from error


def _value(folder: Path) -> str:
    return folder.name.partition("-")[2]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple | set) else [value]
    return [str(one).removeprefix("sub-").removeprefix("ses-") for one in values]


def _scan(root: Path, wanted: Mapping[str, Sequence[str]]) -> Iterator[Path]:
    """Yield the files in the folders of the wanted subjects and sessions."""
    sessions = wanted.get("session")
    for subject in _below(root, "sub-"):
        if _value(subject) in wanted.get("subject", [_value(subject)]):
            below = _below(subject, "ses-")
            for folder in (below or [subject]) if sessions is None else below:
                if sessions is None or _value(folder) in sessions:
                    yield from (file for file in folder.glob("*/*") if "_" in file.name)


def _query(
    root: Path, suffix: str, ends: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> list[Path]:
    try:
        from ancpbids.pybids_compat import BIDSLayout
    except ImportError as error:
        raise WorkflowError(
            f"each.bids: {', '.join(wanted)}: needs ancpbids; pip install 'hpcpipe[bids]'"
        ) from error
    short = {long: key for key, long in _ENTITIES.items()}
    layout: Any = BIDSLayout(str(root))
    found = layout.get(
        scope="raw", return_type="files", suffix=suffix, extension=list(ends),
        **{short[name]: list(values) for name, values in wanted.items()},
    )  # fmt: skip
    return [Path(os.path.abspath(file)) for file in found]
