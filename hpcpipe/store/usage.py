"""How many files and bytes a run takes on disk, beside the files that its tasks made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from hpcpipe.store.rundir import RunDir

_MEASURED = 1000  # files whose size is looked up: a second's work on NFS


class Usage(NamedTuple):
    """Files and bytes below ``.hpcpipe``; the bytes of more than 1,000 files are estimated."""

    files: int
    bytes: int
    cut_logs: tuple[str, ...] = ()  # logs that have lost their middle, from ``.hpcpipe``

    @property
    def exact(self) -> bool:
        """Whether the size of every file was looked up."""
        return self.files <= _MEASURED


def measure(rundir: RunDir) -> Usage:
    """Count the files of a run, and their bytes as far as that is cheap."""
    folders = [*_list(str(rundir.home))]
    files = sum(map(len, folders))
    stride = -(-files // _MEASURED) or 1
    total = 0.0
    for entries in folders:
        sizes = [_size(entry) for entry in entries[::stride]]
        total += sum(sizes) * len(entries) / max(1, len(sizes))
    return Usage(files, round(total), _cut_logs(rundir))


def _cut_logs(rundir: RunDir) -> tuple[str, ...]:
    try:
        names = rundir.cut.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(name for name in dict.fromkeys(names) if (rundir.home / name).exists())


def _list(folder: str) -> Iterator[list[os.DirEntry[str]]]:
    """Yield the files of each folder below one."""
    try:
        with os.scandir(folder) as found:
            entries = [*found]
    except OSError:
        return
    inner = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    yield [entry for entry in entries if entry not in inner] if inner else entries
    for entry in inner:
        yield from _list(entry.path)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:  # it has gone meanwhile
        return 0
