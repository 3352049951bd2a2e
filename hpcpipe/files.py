"""What makes two input files the same: digests of their content, or of how they look."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError

SIZE = 16  # bytes of a digest, and of a task's key


class Files:
    """Digests of input files: of their content, or of size and mtime; of folders, a walk.

    No file within a folder is read, only looked at: a data set may be of any size.

    ``how`` is ``"content"`` (safe: a file that was touched but not changed runs nothing again, one
    changed within the clock's tick does) or ``"stat"`` (quick: no file is read). Content digests
    are remembered by (path, size, mtime, inode) for the life of this object and, through
    ``known``, between runs.
    """

    def __init__(self, how: str = "content", known: dict[str, tuple[Any, ...]] | None = None):
        if how not in ("content", "stat"):
            raise WorkflowError(f"files={how!r}: write 'content' or 'stat'")
        self.how = how
        self.known: dict[str, tuple[Any, ...]] = {} if known is None else known

    def digest(self, path: Path) -> bytes:
        """Digest one file or folder; a missing one has a digest of its own."""
        name = os.path.abspath(path)
        try:
            stat = os.stat(name)
        except OSError:
            return combine(b"missing", os.fsencode(name))
        if os.path.isdir(name):
            return combine(b"folder", *_walk(name))
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if self.how == "stat":
            return combine(b"stat", os.fsencode(name), repr(facts[:2]).encode())
        remembered = self.known.get(name)
        if remembered and tuple(remembered[:3]) == facts:
            return bytes.fromhex(remembered[3])
        try:
            with open(name, "rb") as file:
                content = hashlib.file_digest(file, "blake2b").digest()[:SIZE]
        except OSError as error:
            raise WorkflowError(f"input {name}: {error.strerror}") from error
        # A file changed again within the clock's tick looks the same: remember only settled ones.
        if time.time() - stat.st_mtime > 2:
            self.known[name] = (*facts, content.hex())
        return content


def _walk(folder: str, above: str = "") -> Iterator[bytes]:
    """Say of every file below a folder its path, size and time of change, in order of names.

    What runs of ours leave there is passed over: else a run whose input is the folder it lies in
    would never find anything done.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir(follow_symlinks=False):
            stat = entry.stat(follow_symlinks=False)
            yield os.fsencode(f"{above}{entry.name}")
            yield f"{stat.st_size} {stat.st_mtime_ns}".encode()
        elif not os.path.isdir(f"{entry.path}/.hpcpipe"):
            yield from _walk(entry.path, f"{above}{entry.name}/")


def combine(*parts: bytes) -> bytes:
    """Digest several byte strings as one sequence."""
    state = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
