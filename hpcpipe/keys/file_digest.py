"""Digests of input files: of their content, or of their size and modification time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from hpcpipe.errors import WorkflowError
from hpcpipe.worker.inputs import digest_content

SIZE = 16  # bytes of a digest and of a task's key: 128 bits exclude collisions in practice
MISSING = b"missing"


class Files:
    """Digests of input files.

    ``how`` is ``"content"`` (safe: touching a file without changing it reruns nothing, a change
    within one tick of the clock is noticed) or ``"stat"``, by size and mtime (quick: no file is
    read). A folder is always digested by the size and mtime of its files, since a data set may be
    of any size. Content digests are cached by (path, size, mtime, inode, ctime) for the life of
    this object and, through ``known``, between runs.
    """

    def __init__(self, how: str = "content", known: dict[str, tuple[Any, ...]] | None = None):
        if how not in ("content", "stat"):
            raise WorkflowError(f"files={how!r}: write 'content' or 'stat'")
        self.how = how
        self.known: dict[str, tuple[Any, ...]] = {} if known is None else known
        self.missing: dict[str, None] = {}  # a set, in order
        # When digested: size, mtime in ns, inode, and ctime in ns, which nobody can set.
        self.seen: dict[str, tuple[int, int, int, int]] = {}

    def digest(self, path: Path) -> bytes:
        """Return the digest of a file or folder; a missing one has a digest of its own."""
        name = os.path.abspath(path)
        return Traced(self._digest(name), "file", name)

    def _digest(self, name: str) -> bytes:
        try:
            stat = os.stat(name)
        except OSError:
            self.missing[name] = None
            return combine(MISSING, os.fsencode(name))
        if S_ISDIR(stat.st_mode):
            # Nobody means all files of the machine; to read a device could last for ever.
            return combine(b"folder", *(() if name == "/" else _walk(name)))
        if not S_ISREG(stat.st_mode):
            return combine(b"special", os.fsencode(name))
        exact = self.seen[name] = (stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns)
        if self.how == "stat":
            return combine(b"stat", os.fsencode(name), repr(exact[:2]).encode())
        remembered = self.known.get(name)
        if remembered and tuple(remembered[:-1]) == exact:
            return bytes.fromhex(remembered[-1])
        try:
            content = digest_content(name)
        except OSError as error:
            raise WorkflowError(f"input {name}: {error.strerror}") from error
        # A second change within a tick of the clock (2 s on some file systems) leaves no trace, so
        # cache only the digests of files that have settled.
        if time.time() - max(stat.st_mtime, stat.st_ctime) > 2:
            self.known[name] = (*exact, content.hex())
        return content


def _walk(folder: str, above: str = "", seen: set[str] | None = None) -> Iterator[bytes]:
    """Yield the path, size and mtime of every file below a folder, sorted by name.

    Links are followed, as a task that reads the folder may do, but not to a folder that was seen
    before, such as one above. Run folders are skipped: otherwise a run whose input is the folder
    that contains it would never find anything done.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield b"unreadable"
        return
    seen = {"/"} if seen is None else seen
    seen.add(os.path.realpath(folder))
    for entry in entries:
        name, linked = f"{above}{entry.name}", entry.is_symlink()
        if linked or not entry.is_dir():
            yield os.fsencode(name)
            yield _facts(entry, follow=False)
        if not entry.is_dir():
            if linked:
                yield _facts(entry, follow=True)
        elif linked and os.path.realpath(entry.path) in seen:
            continue
        elif not os.path.isdir(f"{entry.path}/.hpcpipe"):
            yield from _walk(entry.path, f"{name}/", seen)


def _facts(entry: os.DirEntry[str], *, follow: bool) -> bytes:
    try:
        stat = entry.stat(follow_symlinks=follow)
    except OSError:  # a link to nothing, or removed since it was listed
        return MISSING
    return f"{stat.st_size} {stat.st_mtime_ns}".encode()


class Traced(bytes):
    """Bytes that depend on files, with how they were made: see `recipe`."""

    kind: str
    parts: Any

    def __new__(cls, value: bytes, kind: str, parts: Any) -> Traced:
        made = super().__new__(cls, value)
        made.kind, made.parts = kind, parts
        return made

    def __add__(self, other: bytes) -> Traced:  # type: ignore[override]
        return Traced(bytes(self) + bytes(other), "join", (self, other))

    def __radd__(self, other: bytes) -> Traced:
        return Traced(bytes(other) + bytes(self), "join", (other, self))


def recipe(value: bytes) -> Any:
    """Write down in plain values how bytes are made from files; others are their own recipe."""
    if not isinstance(value, Traced):
        return value
    if value.kind == "file":
        return value.kind, (value.parts, bytes(value))
    return value.kind, [recipe(part) for part in value.parts]


def traced_files(how: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a recipe, with the digest that each had."""
    if isinstance(how, bytes):
        return
    kind, parts = how
    if kind == "file":
        yield parts
        return
    for part in parts:
        yield from traced_files(part)


def make_again(how: Any, files: Files) -> bytes:
    """Make bytes by their recipe, of what files hold now; one that is gone counts as unchanged."""
    if isinstance(how, bytes):
        return how
    kind, parts = how
    if kind == "file":
        path, before = parts
        there = os.path.lexists(path)
        return files.digest(Path(path)) if there else Traced(before, "file", path)
    made = [make_again(part, files) for part in parts]
    return combine(*made) if kind == "digest" else made[0] + made[1]


def combine(*parts: bytes) -> bytes:
    """Return the digest of a sequence of byte strings."""
    sized = [piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)]
    digest = hashlib.blake2b(b"".join(sized), digest_size=SIZE).digest()
    return Traced(digest, "digest", parts) if Traced in map(type, parts) else digest
