"""Import nipype without its rarely used dependencies: more than half of an element's start-up cost.

A module that is only accessed while something runs is loaded on first access. For a module from
which names are imported, each name is a stand-in that loads the module on use.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

_LOOKED_INTO = {"asyncio", "networkx", "nibabel", "scipy.io"}
_TAKEN_FROM = {"dateutil.parser", "filelock", "nipype.utils.provenance"}


@contextmanager
def lazily() -> Iterator[None]:
    """Import nipype without the rarely used modules.

    Later imports are ordinary, also those of modules with stand-ins.
    """
    changes = dict.fromkeys(_LOOKED_INTO, _load_on_access)
    changes |= dict.fromkeys(_TAKEN_FROM, _stand_in)
    try:
        with intercepted(changes):
            yield
    finally:
        for name in _TAKEN_FROM:
            if isinstance(sys.modules.get(name), _Names):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if parent:
                    delattr(sys.modules[parent], child)


@contextmanager
def intercepted(changes: Mapping[str, Callable[[ModuleSpec], ModuleSpec]]) -> Iterator[None]:
    """Change the specs of some modules, by name, when they are imported meanwhile."""

    class Finder:
        @staticmethod
        def find_spec(
            name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            del target
            spec = PathFinder.find_spec(name, path) if name in changes else None
            return changes[name](spec) if spec and spec.loader else None

    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)


def _load_on_access(spec: ModuleSpec) -> ModuleSpec:
    assert spec.loader
    spec.loader = LazyLoader(spec.loader)
    return spec


def _stand_in(spec: ModuleSpec) -> ModuleSpec:
    return ModuleSpec(spec.name, _StandIns())  # type: ignore[arg-type]  # not of its class


class _StandIns:
    """A loader of modules that consist of stand-ins."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return _Names(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Do nothing yet."""


class _Names(ModuleType):
    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):  # attributes that the import system reads of any module
            raise AttributeError(name)
        return _StandIn(self.__name__, name)


class _StandIn:
    """A stand-in for a function, class or value of a module that is not loaded yet."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._real()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]
