"""What is in a BIDS data set: subjects, sessions, and the images of a kind, named by what they are.

Folders are listed and names are read, and no file is opened: a study of a thousand subjects takes a
moment. Queries by other entities than those of the folders go to ancpbids.
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
}  # fmt: skip  # of file names, in the order in which they tell images apart


def participants(dataset: str | os.PathLike[str], sessions: bool = False) -> list[tuple[str, ...]]:
    """List the subjects of a data set, or its sessions, each with its subject; no prefixes.

    A subject without sessions has the one ``""``. Raises WorkflowError where there is none.
    """
    subjects = _below(Path(dataset), "sub-")
    if not subjects:
        raise WorkflowError(f"{dataset}: no folder sub-… in it; name the root of a BIDS data set")
    if not sessions:
        return [(_value(folder),) for folder in subjects]
    return [
        (_value(subject), _value(session) if session != subject else "")
        for subject in subjects
        for session in _below(subject, "ses-") or [subject]
    ]


def images(
    dataset: str | os.PathLike[str],
    suffix: str,
    extension: str | Sequence[str] = IMAGES,
    **entities: Any,
) -> list[Path]:
    """Find the files of a suffix such as ``T1w``, with these entities, in order of their names.

    Raises WorkflowError where there is none, saying what there is.
    """
    root = Path(os.path.abspath(dataset))
    ends = (extension,) if isinstance(extension, str) else tuple(extension)
    wanted = {_ENTITIES.get(name, name): _texts(value) for name, value in entities.items()}
    participants(root)  # or it is no data set
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
    return sorted(found)


def grouped(files: Sequence[Path], per: str | None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give files with what tells them apart; with ``per``, lists of those that agree up to it.

    Raises WorkflowError where ``per`` is no entity.
    """
    named = [entities(file) for file in files]
    names = [one for one in _ENTITIES.values() if one == "subject" or _varies(named, one)]
    if per is None:
        yield from ((_row(of, names), file) for of, file in zip(named, files, strict=True))
        return
    if per not in _ENTITIES.values():
        raise WorkflowError(f"each.bids: per={per!r}{near(per, _ENTITIES.values())}")
    order = [*_ENTITIES.values()]
    names = [name for name in names if order.index(name) <= order.index(per)]
    lists: dict[tuple[str, ...], list[Path]] = {}
    for of, file in zip(named, files, strict=True):
        lists.setdefault(_row(of, names), []).append(file)
    yield from lists.items()


def entities(file: Path) -> dict[str, str]:
    """Read the entities in a file's name."""
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
    """Give the files in the folders of the wanted subjects and sessions."""
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
