"""Imports nipype without what few nodes use of it: more than half of what an element's start costs.

A module that is only looked into while something runs is loaded when that is done. Of one whose
names are taken from it at once, each name has a stand-in, which loads the module when it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_LOOKED_INTO = {"asyncio", "networkx", "nibabel", "scipy.io"}
_TAKEN_FROM = {"dateutil.parser", "filelock", "nipype.utils.provenance"}


class Finder:
    """Finds the seldom used modules while nipype is imported; see `install` and `remove`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the modules, as the import system asks."""
        del target
        if name not in _LOOKED_INTO | _TAKEN_FROM:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        if name in _LOOKED_INTO:
            spec.loader = LazyLoader(spec.loader)
            return spec
        return ModuleSpec(name, _StandIns())  # type: ignore[arg-type]  # not of its class

    @classmethod
    def install(cls) -> None:
        """Begin to find them."""
        sys.meta_path.insert(0, cls)

    @classmethod
    def remove(cls) -> None:
        """Leave all that is imported from now on as it is, stand-ins' modules included."""
        sys.meta_path.remove(cls)
        for name in _TAKEN_FROM:
            if isinstance(sys.modules.get(name), _Names):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if parent:
                    delattr(sys.modules[parent], child)


class _StandIns:
    """Loads a module of stand-ins."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return _Names(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing is done yet."""


class _Names(ModuleType):
    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):  # what the import system asks of any module
            raise AttributeError(name)
        return _StandIn(self.__name__, name)


class _StandIn:
    """Stands for a function, class or value of a module that is not loaded yet."""

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
