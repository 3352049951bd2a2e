"""Input files on a node: are they what the plan saw? Imported only by tasks that have some.

An input is a tuple: its path; its size, time (ns), inode and change time (ns) when the plan was
made, or None; its digest then; and whether that is of its content. Only where one of these differs
is it read. Nobody can set the change time. Links and permissions change it, too, so that it does
not count where the content does not.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Input = tuple[str, tuple[int, int, int, int] | None, bytes, bool]

SIZE = 16  # bytes of a digest
BEFORE, AFTER = "since it was planned", "while the task ran"


class InputChanged(Exception):
    """An input of a task is not what its plan saw, so that its result would be of another task."""

    hpcpipe_cause = "input"

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def check(inputs: Sequence[Input], when: str) -> None:
    """Raise InputChanged if an input is not what the plan saw.

    One that is gone ``AFTER`` the task was moved or compressed by the task: it was read before.
    """
    for path, facts, digest, content in inputs:
        try:
            stat = os.stat(path)
            now = stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns
            if now == facts or (facts and not content and now[:3] == facts[:3]):
                continue
            if content and digest_content(path) == digest:
                continue
        except OSError as error:
            if when == AFTER:
                continue
            gone = isinstance(error, FileNotFoundError)
            words = f" is gone {when}" if gone else f": {error.strerror}"
            raise InputChanged(f"input {path}{words}") from None
        raise InputChanged(f"input {path} changed {when}")


def digest_content(path: str) -> bytes:
    """Return the digest of a file's content."""
    state = blake2b()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.digest()[:SIZE]
