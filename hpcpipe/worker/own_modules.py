"""Imports the user's own modules from their source, never from a cache of bytecode.

Python tells such a cache from another version of a file only by its size and the second of its
change, so that of two quick edits the first would run again, with nothing said.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder
    from types import CodeType


class Source(SourceFileLoader):
    """Reads the file itself, as ``python FILE`` does."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_folders: dict[str, None] = {}
_find = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (Source, SOURCE_SUFFIXES))


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


def read_below(folder: str) -> None:
    """Read what is imported from a folder, and from those below, from its source."""
    _folders[folder] = None
    for entry in filter(_is_own, [*sys.path_importer_cache]):
        del sys.path_importer_cache[entry]
    if _find_below not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_below)
