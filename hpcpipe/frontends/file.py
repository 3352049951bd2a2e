"""Execute a workflow's file as a module."""

from __future__ import annotations

import os
import sys
import types
from importlib.abc import PathEntryFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hpcpipe.errors import HpcpipeError, UsageError, WorkflowError
from hpcpipe.graph.loading import Reached, loading, reached


class _Source(SourceFileLoader):
    """Reads the file itself, as ``python FILE`` does.

    A cache of bytecode is told from another version of the file only by its size and the second of
    its change, so that of two quick edits the first would run again, with nothing said.
    """

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


_folders: dict[str, None] = {}  # of workflow files: what is imported from there is read likewise
_find = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_Source, SOURCE_SUFFIXES))


def _is_own(entry: str) -> bool:
    """Return whether modules there are the user's own: not of a Python that is installed there."""
    own = _is_below(entry, *_folders) and "site-packages" not in entry
    return own and not _is_below(entry, sys.prefix, sys.base_prefix)


def _is_below(entry: str, *folders: str) -> bool:
    return any(f"{entry}{os.sep}".startswith(f"{folder}{os.sep}") for folder in folders)


def _find_below(entry: str) -> PathEntryFinder:
    if not _is_own(entry):
        raise ImportError(entry)
    return _find(entry)


def _read_below(folder: str) -> None:
    """Read the user's own modules in a folder themselves, too."""
    if folder not in _folders:
        _folders[folder] = None
        for entry in filter(_is_own, [*sys.path_importer_cache]):
            del sys.path_importer_cache[entry]
    if _find_below not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_below)


def load_file(path: Path) -> types.ModuleType:
    """Execute a workflow file as a module named by its stem, its folder first on ``sys.path``.

    It is executed up to where it would run a workflow, which `reached` then holds. Raises
    UsageError if it is not a file, and WorkflowError naming the line where it fails.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name a workflow file, for example normalize.py")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _read_below(folder)
    name = path.stem if path.stem not in sys.modules else f"workflow_{path.stem}"
    if path.suffix != ".py":
        raise UsageError(f"{path}: not a Python file; its name should end in .py")
    loader = _Source(name, str(path.absolute()))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    loading.append(name)
    reached.clear()
    try:
        loader.exec_module(module)
    except Reached:
        pass
    except HpcpipeError as error:
        raise type(error)(f"{path}:{line_of(error, path)}: {error}") from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise WorkflowError(f"{path}:{line_of(error, path)}: {said}") from error
    finally:
        loading.remove(name)
    return module


def line_of(error: BaseException, path: Path) -> int:
    """Return the line of the user's file at which an error was raised."""
    trace, line = error.__traceback__, getattr(error, "lineno", None) or 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.absolute()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
