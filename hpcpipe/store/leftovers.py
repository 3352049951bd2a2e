"""The files that earlier runs left: found by the batches, keys and plans that they are of.

Whatever has another name stays, so that nothing is deleted that somebody else put there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hpcpipe.errors import ResultError
from hpcpipe.store.plan import Frozen, read_plan
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import OWNER

_BATCH = re.compile(r"(.+?-[0-9a-f]{8})(?:\.|$)")  # its id, at the beginning of a file's name
_ENVIRONMENT = re.compile(r"batches/[0-9a-f]{16}\.env")
_LATER = 60.0  # seconds by which clocks of hosts may differ

# Kinds of files, in the order in which they are deleted: what tells of others goes last.
FOLDERS, RESULTS, LOGS, SCRIPTS, PLANS = (
    "working folders",
    "results",
    "logs",
    "scripts and task files",
    "plans",
)


class Found(NamedTuple):
    """A file, or a working folder with all that is in it: how many files and bytes."""

    path: Path
    files: int
    bytes: int


def find_leftovers(
    rundir: RunDir,
    batches: Collection[str],
    keys: Collection[str],
    runs: Collection[int],
    plans: Collection[str],
) -> dict[str, list[Found]]:
    """Find the files of batches, of tasks by their keys, of records and of plans, by kind."""
    return {
        FOLDERS: [*_folders(rundir, keys, plans)],
        RESULTS: [*_results(rundir, keys), *_of_batches(rundir.home / "packs", batches)],
        LOGS: [*_of_batches(rundir.logs, batches)],
        SCRIPTS: [
            *_environments(rundir, batches),
            *_of_batches(rundir.batches, batches),
            *_of_batches(rundir.home / "cancelled", batches),
        ],
        PLANS: [*_plans(rundir, runs, plans)],
    }


def delete(found: Iterable[Found]) -> None:
    """Delete files and folders; one that has gone meanwhile is none."""
    for one in found:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
            _remove_empty(one.path.parent)
        else:
            one.path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # it has others


def _file(entry: os.DirEntry[str]) -> Found:
    return Found(Path(entry.path), 1, entry.stat(follow_symlinks=False).st_size)


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _of_batches(folder: Path, batches: Collection[str]) -> Iterator[Found]:
    known = {*batches, *(re.sub(r"[^A-Za-z0-9-]", "_", one) for one in batches)}  # HTCondor's
    for entry in _scan(folder):
        match = _BATCH.match(entry.name)
        if match and match[1] in known and entry.is_file(follow_symlinks=False):
            yield _file(entry)


def _results(rundir: RunDir, keys: Collection[str]) -> Iterator[Found]:
    for node in _scan(rundir.home / "results"):
        for entry in _scan(Path(node.path)) if node.is_dir(follow_symlinks=False) else ():
            if entry.name.partition(".")[0] in keys:
                yield _file(entry)


def _environments(rundir: RunDir, batches: Collection[str]) -> Iterator[Found]:
    """Find the files of variables that only scripts of these batches read."""
    read: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in _scan(rundir.batches):
        if entry.name.endswith(".sh"):
            text = Path(entry.path).read_text("utf-8", "surrogateescape")
            read[entry.name[:-3] in batches].update(_ENVIRONMENT.findall(text))
    for name in sorted(read[True] - read[False]):
        if (path := rundir.home / name).exists():
            yield Found(path, 1, path.stat().st_size)


def _plans(rundir: RunDir, runs: Collection[int], plans: Collection[str]) -> Iterator[Found]:
    """Find payloads before their plan, and records last: by them the rest is found again."""
    kept = [path.stem for path in rundir.plans.glob("*.plan") if path.stem not in plans]
    used = {name for plan in _read(rundir, kept) for name in _payloads(plan)}
    names = {name for plan in _read(rundir, plans) for name in _payloads(plan)} - used
    paths = (
        *map(rundir.payloads, sorted(names)),
        *map(rundir.plan, sorted(plans)),
        *map(rundir.record, sorted(runs)),
    )
    for path in paths:
        if path.exists():
            yield Found(path, 1, path.stat().st_size)


def _payloads(plan: Frozen) -> Iterator[str]:
    return (part.name for node in plan.nodes.values() for part in node.payloads)


def _read(rundir: RunDir, plans: Iterable[str]) -> Iterator[Frozen]:
    for digest in plans:
        try:
            yield read_plan(rundir, digest)
        except ResultError:
            continue


def _folders(rundir: RunDir, keys: Collection[str], plans: Collection[str]) -> Iterator[Found]:
    """Find the working folders that have the files of one of these tasks, as it left them."""
    nodes = {n.name for plan in _read(rundir, plans) for n in plan.nodes.values() if n.folder}
    for name in sorted(nodes):
        home = rundir.folder / name
        inner = (Path(entry.path) for entry in _scan(home) if entry.is_dir(follow_symlinks=False))
        for folder in [home] if (home / OWNER).exists() else [*inner]:
            ended = _ended(rundir, name, folder, keys)
            if ended is not None and (found := _measure(folder, ended + _LATER)):
                yield found


def _ended(rundir: RunDir, node: str, folder: Path, keys: Collection[str]) -> float | None:
    """Return when the task that has a folder left its outcome; None if it is none of these."""
    try:
        lines = [line.split() for line in (folder / OWNER).read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return None
    if not lines or any(line[:1] and line[0] not in keys for line in lines):
        return None
    outcomes = [
        *(rundir.home / pack for _, *packs in lines for pack in packs),
        *(path for key, *_ in lines for path in (rundir.home / "results" / node).glob(f"{key}.*")),
    ]
    return max((path.stat().st_mtime for path in outcomes if path.exists()), default=None)


def _measure(folder: Path, ended: float) -> Found | None:
    """Count the files in a folder; None if another user owns one, or one was changed later."""
    files = size = 0
    for top, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            stat = os.lstat(os.path.join(top, name))
            if stat.st_uid != os.geteuid() or max(stat.st_mtime, stat.st_ctime) > ended:
                return None
        files += len(names)
        size += sum(os.lstat(os.path.join(top, name)).st_size for name in names)
    return Found(folder, files, size)
