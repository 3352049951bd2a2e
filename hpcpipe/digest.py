"""What makes two values the same: canonical digests of Python values, files and code.

A task's key is built from these, so they must not vary between runs, hash seeds, or the order in
which a set was filled. Pickles do vary (with sharing and interning), hence this walk.
"""

from __future__ import annotations

import dis
import enum
import hashlib
import os
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from hpcpipe.errors import WorkflowError

SIZE = 16  # bytes of a digest, and of a task's key


class Files:
    """Digests of input files: of their content, or of size and mtime.

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
            entries = sorted(os.scandir(name), key=lambda entry: entry.name)
            inner = (os.fsencode(e.name) + self.digest(Path(e.path)) for e in entries)
            return combine(b"folder", *inner)
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if self.how == "stat":
            return combine(b"stat", os.fsencode(name), repr(facts[:2]).encode())
        remembered = self.known.get(name)
        if remembered and tuple(remembered[:3]) == facts:
            return bytes.fromhex(remembered[3])
        with open(name, "rb") as file:
            content = hashlib.file_digest(file, "blake2b").digest()[:SIZE]
        # A file changed again within the clock's tick looks the same: remember only settled ones.
        if time.time() - stat.st_mtime > 2:
            self.known[name] = (*facts, content.hex())
        return content


def combine(*parts: bytes) -> bytes:
    """Digest several byte strings as one sequence."""
    state = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


class Digests:
    """Digests of values: equal values give equal digests, in every process of this Python.

    A `Path` stands for the file it names. ``is_own`` tells which modules are the user's own, so
    that their code counts and not just their name.
    """

    def __init__(self, files: Files, is_own: Callable[[str], bool]) -> None:
        self.files = files
        self._is_own = is_own
        self._inside: dict[int, int] = {}  # what the walk is within, for recursion

    def digest(self, value: Any) -> bytes:
        """Digest one value; raises WorkflowError where it can neither be walked nor pickled."""
        kind = type(value)
        if kind in (bool, int, float, complex, type(None), str, bytes):
            return combine(kind.__name__.encode(), _plain(value))
        if isinstance(value, Path):
            return combine(b"path", os.fsencode(value.name), self.files.digest(value))
        if id(value) in self._inside:
            return combine(b"recursion", str(self._inside[id(value)]).encode())
        self._inside[id(value)] = len(self._inside)
        try:
            return self._compound(value, kind)
        finally:
            del self._inside[id(value)]

    def _compound(self, value: Any, kind: type) -> bytes:
        name = kind.__name__.encode()
        if kind in (list, tuple):
            return combine(name, *map(self.digest, value))
        if kind in (set, frozenset):
            return combine(name, *sorted(map(self.digest, value)))
        if kind is dict:
            pairs = (self.digest(key) + self.digest(item) for key, item in value.items())
            return combine(name, *sorted(pairs))
        if isinstance(value, enum.Enum):
            return combine(b"enum", _name(kind), value.name.encode())
        if isinstance(value, PurePath):
            return combine(b"purepath", os.fsencode(value))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return combine(b"method", self.digest(value.__func__), self.digest(value.__self__))
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in fields(value)}
            return combine(b"dataclass", self.digest(kind), self.digest(state))
        return self._pickled(value)

    def _function(self, function: types.FunctionType) -> bytes:
        where = function.__module__ or ""
        if not self._is_own(where):
            return combine(b"installed", _name(function), _version(where))
        globals_ = {
            name: function.__globals__[name]
            for name in global_names(function.__code__)
            if name in function.__globals__
        }
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        parts = (function.__defaults__, function.__kwdefaults__, cells, globals_)
        return combine(b"function", self._code(function.__code__), *map(self.digest, parts))

    def _code(self, code: types.CodeType) -> bytes:
        # Neither file name nor line numbers: a comment added above must run nothing again.
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        return combine(b"code", code.co_code, *map(self.digest, (code.co_consts, *names, shape)))

    def _module(self, module: types.ModuleType) -> bytes:
        name = module.__name__
        source = getattr(module, "__file__", None)
        if self._is_own(name) and source:
            return combine(b"module", name.encode(), Files("content").digest(Path(source)))
        return combine(b"installed", name.encode(), _version(name))

    def _class(self, cls: type) -> bytes:
        if not self._is_own(cls.__module__):
            return combine(b"installed", _name(cls), _version(cls.__module__))
        skip = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
        state = {name: item for name, item in vars(cls).items() if name not in skip}
        members = (
            name.encode() + self.digest(getattr(item, "__func__", item))
            for name, item in sorted(state.items())
            if isinstance(getattr(item, "__func__", item), types.FunctionType | str | int | float)
        )
        return combine(b"class", _name(cls), *map(self.digest, cls.__bases__), *members)

    def _pickled(self, value: Any) -> bytes:
        import cloudpickle

        try:
            return combine(b"pickle", _name(type(value)), cloudpickle.dumps(value, protocol=5))
        except Exception as error:
            raise WorkflowError(
                f"a {type(value).__qualname__} cannot be pickled to reach a task: {error}"
            ) from error


def _plain(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return repr(value).encode()


def _name(thing: Any) -> bytes:
    module = getattr(thing, "__module__", None) or ""
    return f"{module}:{getattr(thing, '__qualname__', '')}".encode()


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a function that refers to itself before it is assigned
        return None


def global_names(code: types.CodeType) -> set[str]:
    """Names that code, and the functions nested in it, look up as globals (not as attributes)."""
    lookups = ("LOAD_GLOBAL", "LOAD_NAME")
    names = {step.argval for step in dis.get_instructions(code) if step.opname in lookups}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= global_names(const)
    return names


def _version(module: str) -> bytes:
    top: Mapping[str, Any] = vars(sys.modules.get(module.partition(".")[0], types))
    return str(top.get("__version__", "")).encode()
