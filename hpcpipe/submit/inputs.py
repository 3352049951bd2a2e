"""The input files of each task, as the plan saw them, for the node to compare."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hpcpipe.graph.axes import places
from hpcpipe.keys.file_digest import MISSING, combine, traced_files
from hpcpipe.store.plan import NodeRecord
from hpcpipe.worker.inputs import Input

Facts = tuple[int, int, int, int]  # size, mtime in ns, inode, ctime in ns


class Inputs:
    """The input files of a plan's tasks; ``seen`` has the facts of files when they were digested.

    Folders and devices are left out, since tasks may write there, and files that were missing,
    which may be what a task is to make.
    """

    def __init__(self, seen: Mapping[str, Facts], *, content: bool) -> None:
        self._seen, self._content = seen, content
        self._found = cache(self._find)

    def of(self, node: NodeRecord, task: int) -> tuple[Input, ...]:
        """Return the inputs of one task; most tasks of a million have none."""
        if node.recipe is None:
            return ()
        shared, columns = node.recipe
        found = [self._all(shared)]
        for (_, place), column in zip(places(node.axes, task), columns, strict=True):
            found.append(self._all(column[place]))
        return tuple(dict.fromkeys(one for some in found for one in some))

    def _all(self, how: Any) -> Iterator[Input]:
        return filter(None, (self._found(*file) for file in traced_files(how)))

    def _find(self, path: str, digest: bytes) -> Input | None:
        unseen = path not in self._seen and os.path.exists(path)  # a folder or a device
        if unseen or digest == combine(MISSING, os.fsencode(path)):
            return None
        return path, self._seen.get(path), digest, self._content
