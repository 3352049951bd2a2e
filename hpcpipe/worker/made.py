"""Files that a task returned: are they as it left them? Imported only where there are some.

``files`` in an outcome's record has three words for each path that the task returned: its size, its
modification time in seconds, and a digest of its content, or ``-`` of one that is long or no file.
``templates/command.sh.j2`` writes and compares the same.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from hpcpipe.worker.inputs import InputChanged, digest_content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Noted = tuple[str, str, str]

LONG = 1 << 26  # bytes; to read a longer file again would cost its task more than it is worth
_NONE = "-"


def note(paths: Iterable[str]) -> str:
    """Write down what files are like when their task has ended; raises OSError."""
    words = []
    for path in paths:
        stat = os.stat(path)
        short = S_ISREG(stat.st_mode) and stat.st_size <= LONG
        words += [*_facts(stat), digest_content(path).hex() if short else _NONE]
    return " ".join(words)


def noted(record: Mapping[str, object], paths: Sequence[str]) -> dict[str, Noted]:
    """Read what was noted of each path, if anything was."""
    words = str(record.get("files", "")).split()
    if len(words) != 3 * len(paths):  # by an earlier version
        return {}
    return dict(zip(paths, zip(*[iter(words)] * 3, strict=True), strict=True))


def is_changed(
    path: str, known: Sequence[Noted], digest: Callable[[str], bytes] = digest_content
) -> bool:
    """Return whether a file differs from all that is known of it; of a folder nothing is compared.

    Only where size or time differ is it read. To open it makes an NFS client look again. Raises
    OSError where it is not there.
    """
    stat = os.stat(path)
    facts = [one[:2] for one in known]
    if S_ISDIR(stat.st_mode) or _facts(stat) in facts:
        return False
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
    size, _ = found = _facts(stat)
    if found in facts:
        return False
    digests = [one[2] for one in known if one[0] == size and one[2] != _NONE]
    return not digests or not any(one.startswith(digest(path).hex()) for one in digests)


def check(made: Mapping[str, Sequence[Noted]], node: str) -> None:
    """Raise InputChanged if a file that a node made, and this task is to read, was changed.

    ``made`` has what each of the tasks upstream noted of it: the last one to write it knows it.
    """
    for path, known in made.items():
        try:
            if not is_changed(path, known):
                continue
            words = "was changed"
        except FileNotFoundError:
            words = "is gone"
        except OSError as error:
            words = f"cannot be read ({error.strerror})"
        raise InputChanged(f"input {path} {words} after {node} made it")


def _facts(stat: os.stat_result) -> tuple[str, str]:
    seconds, ns = divmod(stat.st_mtime_ns, 10**9)
    return str(stat.st_size), f"{seconds}.{ns:09}"
