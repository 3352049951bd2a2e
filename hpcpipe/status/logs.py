"""Where the output of a task is, and what of a log is its own."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from os.path import exists  # unlike Path's, where a folder may not be read
from pathlib import Path
from typing import NamedTuple

from hpcpipe.store.record import BatchRecord
from hpcpipe.store.rundir import RunDir
from hpcpipe.worker.outcome import MARK

_MARK = re.compile(rb"%b\S+ [0-9a-f]{32}\n" % MARK.encode())
_END = 4096  # bytes at the end of a log that are enough for its last lines
_SMALL = 1 << 20  # a log of several tasks up to this size is read for one of them


class Log(NamedTuple):
    """Where a task's output is.

    In its element's log; in a pack, after each ``mark`` of the task there. Or in a log of its own:
    while other tasks run in parallel, and if it was killed together with them.
    """

    shared: Path
    own: Path
    mark: bytes

    @property
    def path(self) -> Path:
        """The file that has the output now."""
        return self.own if exists(self.own) else self.shared

    def lines(self, at: int = 0) -> Iterator[bytes]:
        """Yield the lines that the task has written, starting at byte ``at``."""
        for path, mark in ((self.own, b""), (self.shared, self.mark)):
            try:
                with path.open("rb") as file:
                    if mark:
                        yield from _from(at, _of(mark, file))
                    else:
                        file.seek(at)
                        yield from file
                return
            except FileNotFoundError:
                continue

    def tail(self, count: int) -> list[bytes]:
        """Return the last ``count`` lines."""
        return [*deque(self.lines(), count)]

    def last_lines(self, count: int) -> list[bytes]:
        """Return the last ``count`` lines, or fewer, without reading much; none if it has none."""
        try:
            size = self.path.stat().st_size
            if self.mark and not exists(self.own):
                return self.tail(count) if size < _SMALL else []
            with self.path.open("rb") as file:
                file.seek(max(0, size - _END))
                return file.read().splitlines()[-count:]
        except OSError:
            return []


def _of(mark: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of the marked task; all lines if no task has begun."""
    mine: bool | None = None
    head = []
    for line in lines:
        found = _MARK.search(line)  # text before it did not end in a newline
        text = line[: found.start()] if found else line
        if mine and text:
            yield text
        elif mine is None:
            head.append(text)
        if found:
            mine = found[0] == mark
    if mine is None:
        yield from head


def _from(at: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Skip the first ``at`` bytes."""
    for line in lines:
        if at < len(line):
            yield line[at:]
        at = max(0, at - len(line))


def log_of(rundir: RunDir, batch: BatchRecord, node: str, key: str, index: int | None) -> Log:
    """Return where the output of one task of a batch is."""
    mark = b"" if batch.starts is None else f"{MARK}{node} {key}\n".encode()
    return Log(rundir.log(batch.id, index), rundir.own_log(batch.id, key), mark)
