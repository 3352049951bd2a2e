"""What code refers to: its globals, its imports, the files of modules, and whose they are."""

from __future__ import annotations

import ast
import dis
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from hpcpipe.errors import WorkflowError

LOOKUPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
IMPORTS = frozenset({"IMPORT_NAME", "IMPORT_FROM"})

_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")]
_INSTALLED = tuple(f"{Path(p).resolve()}/" for p in (*_PLACES, str(Path(__file__).parents[1])))
_PACKAGES = {"site-packages", "dist-packages"}  # may be below the user's folder, as in ~/.local
_BY_NAME = {"import_module", "__import__"}  # functions that import the module that text names
_MODULE = re.compile(r"\.*[A-Za-z_][\w.]*")
_SUITES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def is_installed(path: Path) -> bool:
    """Return whether a file belongs to the standard library, an installed one, or hpcpipe."""
    return str(path).startswith(_INSTALLED) or not _PACKAGES.isdisjoint(path.parts)


def module_file(name: str) -> Path | None:
    """Return the file of a module, imported or not; None if it has none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if file else None
    spec = _find(name) if name else None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _find(name: str) -> ModuleSpec | None:
    """Find a module as importing it would, but without importing its packages."""
    parent = name.rpartition(".")[0]
    path: Any = None
    if parent in sys.modules:
        path = getattr(sys.modules[parent], "__path__", [])
    elif parent:
        above = _find(parent)
        path = (above and above.submodule_search_locations) or []
    for finder in sys.meta_path:
        if (find := getattr(finder, "find_spec", None)) and (spec := find(name, path)):
            found: ModuleSpec = spec
            return found
    return None


def compiled(path: Path) -> types.CodeType:
    """Compile a module's file without its docstrings; raise WorkflowError if it cannot be."""
    try:
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, _SUITES) and ast.get_docstring(node, clean=False) is not None:
                node.body[:1] = (
                    [] if node.body[1:] or isinstance(node, ast.Module) else [ast.Pass()]
                )
        ast.fix_missing_locations(tree)
        made: types.CodeType = compile(tree, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise WorkflowError(f"{path}: {error}") from error
    return made


def operations(code: types.CodeType) -> tuple[bytes, list[Any]]:
    """Return what code does: its operations, and the constants in the order in which it uses them.

    Not where the constants are: a docstring, which is one, does not affect what code does.
    """
    told = bytearray()
    used = list(code.co_consts[:1]) if "__doc__" in code.co_names else []
    for step in _steps(code):
        constant = step.opcode in dis.hasconst
        told += b"%d %d;" % (step.opcode, 0 if constant or step.arg is None else step.arg)
        if constant:
            used.append(code.co_consts[step.arg or 0])
    return bytes(told), used


@lru_cache(4096)
def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]


def global_names(code: types.CodeType, operations: Collection[str] = LOOKUPS) -> set[str]:
    """Return the names that code and its nested functions look up as globals.

    With ``STORES``, those that it rebinds; with ``ATTRIBUTES``, the attributes it looks up; with
    ``IMPORTS``, what it imports.
    """
    return {
        step.argval for one in _nested(code) for step in _steps(one) if step.opname in operations
    }


def named_in(code: types.CodeType) -> set[str]:
    """Return all names in code and its nested functions, whatever they stand for."""
    return {name for one in _nested(code) for name in one.co_names}


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _nested(const)


def imports(
    code: types.CodeType, where: str, package: str, is_own: Callable[[str], bool]
) -> set[str]:
    """Return the user's modules that code of the module ``where`` imports at run time.

    Also those that it imports from its own packages, and by ``importlib.import_module``.
    """
    names = global_names(code, IMPORTS)
    for inner in _nested(code):
        if not _BY_NAME.isdisjoint(inner.co_names):
            texts = (text for text in inner.co_consts if isinstance(text, str))
            names |= {text.lstrip(".") for text in texts if _MODULE.fullmatch(text)}
    above = [*_packages(package), *_packages(where)]
    tops = {top for p in ("", *above) for n in names if is_own(top := (p + n).strip("."))}
    return tops | {one for top in tops for n in names if n and is_own(one := f"{top}.{n}")}


def _packages(name: str) -> Iterator[str]:
    while name:
        yield f"{name}."
        name = name.rpartition(".")[0]


def submodules(code: types.CodeType, values: Iterable[Any]) -> Iterator[types.ModuleType]:
    """Yield submodules that must be imported too: ``xml.dom`` if code uses it through ``xml``."""
    prefixes = [f"{module.__name__}." for module in values if isinstance(module, types.ModuleType)]
    attributes = global_names(code, ATTRIBUTES) if prefixes else set()
    for name, module in list(sys.modules.items()):
        for prefix in prefixes:
            below = name.removeprefix(prefix)
            if below != name and attributes.issuperset(below.split(".")):
                yield module
