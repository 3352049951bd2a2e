"""Whose the program is that a command runs: a script of one's own counts by its content."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from sys import path as sys_path

from hpcpipe.errors import WorkflowError
from hpcpipe.keys.code import compiled, imports, is_installed

_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")  # beside the bin folder of one
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_WITH_VALUE = {"-u", "--unset", "-C", "--chdir"}, {"-W", "-X", "--check-hash-based-pycs"}


def own_program(word: str) -> Path | None:
    """Return the script that PATH finds for a command's first word, if it is the user's own.

    It lies below their home folder, or the folder they submit from, and in no environment:
    what is installed counts by its name, so that keys are the same on another cluster.
    """
    found = shutil.which(word)
    if found is None:
        return None
    path = Path(os.path.realpath(found))
    places = {os.path.realpath(place) for place in (os.path.expanduser("~"), os.getcwd())}
    if places.isdisjoint(map(str, path.parents[:-1])):  # nobody owns all of the machine
        return None
    if any((path.parents[1] / name).exists() for name in _ENVIRONMENTS):
        return None
    return path if _is_script(path) else None


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:  # it may be run, but not read
        return False


def program_of(words: Sequence[str]) -> tuple[int, Mapping[str, str]]:
    """Find a command's program behind ``env``: where it is, and the variables that it gets.

    Where that is not sure, the program is ``env``.
    """
    if os.path.basename(words[0]) != "env":
        return 0, {}
    variables: dict[str, str] = {}
    at = 1
    while at < len(words):
        if given := _VARIABLE.fullmatch(words[at]):
            variables[given[1]] = given[2]
        elif words[at] in _WITH_VALUE[0]:
            at += 1
        elif words[at].startswith("-S") or words[at].startswith("--split"):
            break  # its words are within this one
        elif not words[at].startswith("-"):
            return at, variables
        at += 1
    return 0, {}


def own_modules(words: Sequence[str], variables: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield the user's own modules that ``python -m MODULE`` or ``python FILE`` would import."""
    if not _PYTHON.fullmatch(os.path.basename(words[0])):
        return
    start, folder = _start(words)
    given = variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    search = _Search([folder, *filter(None, given.split(os.pathsep)), *filter(None, sys_path)])
    if start.endswith(".py") and os.path.isfile(start):
        search.follow("__main__", Path(start), "")
        del search.found["__main__"]
    elif start:
        search.add(start)
        search.add(f"{start}.__main__")
    yield from sorted(search.found.items())


def _start(words: Sequence[str]) -> tuple[str, str]:
    """Return the module or file that Python is to run, or "", and the folder that it looks in."""
    at = 1
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        short = word.startswith("-") and not word.startswith("--")
        if short and "m" in word and not word.startswith(("-W", "-X", "-c")):
            module = word.partition("m")[2] or "".join(words[at + 1 : at + 2])
            return (module, os.getcwd()) if re.fullmatch(r"[\w.]+", module) else ("", "")
        if short and "c" in word and not word.startswith(("-W", "-X")):
            break  # code
        at += 2 if word in _WITH_VALUE[1] else 1
    else:
        if at < len(words):
            return words[at], os.path.dirname(os.path.abspath(words[at]))
    return "", ""


class _Search:
    """The user's own modules that some import, found where Python would look for them."""

    def __init__(self, path: Sequence[str]) -> None:
        self._path = path
        self.found: dict[str, Path] = {}

    def add(self, name: str) -> None:
        """Add a module, those it is in and those that it imports, if they are the user's own."""
        path = self._find(name)
        if path is None or name in self.found:
            return
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.follow(name, path, package)
        if above := name.rpartition(".")[0]:
            self.add(above)

    def follow(self, name: str, path: Path, package: str) -> None:
        """Add a module at a path, and what it imports."""
        self.found[name] = path
        try:
            code = compiled(path)
        except (WorkflowError, OSError):  # for another Python: running it will say so
            return
        for one in sorted(imports(code, name, package, lambda one: self._find(one) is not None)):
            self.add(one)

    def _find(self, name: str) -> Path | None:
        search: Sequence[str] | None = self._path
        spec = None
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:depth]), search)
            if spec is None:
                return None
            search = spec.submodule_search_locations or []
        origin = spec.origin if spec and spec.has_location else None
        if origin is None or not origin.endswith(".py"):
            return None
        path = Path(os.path.abspath(origin))
        return None if is_installed(path) or is_installed(path.resolve()) else path
