"""What a task leaves on disk, how it is written, and who may read it.

``results/<node>/<key>.pkl`` (good) or ``<key>.<batch>.err`` (not good): two pickles one after the
other. First a dict of plain values (see `hpcpipe.worker.Element.record`), so that a report can read
how a task went without loading what it returned; then the value, or the exception. Imported by
every worker, so this imports next to nothing.
"""

from __future__ import annotations

import os
import sys
from _pickle import PickleError, dumps, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO


class Refused(Exception):
    """A pickle that another user owns or could have written, or one that was changed."""


def open_trusted(path: str) -> BinaryIO:
    """Open a pickle only if nobody but its reader could have written it.

    Unpickling runs code. Raises Refused, or OSError where the file is not there.
    """
    file = open(path, "rb")  # noqa: SIM115  the caller closes it
    stat = os.fstat(file.fileno())
    ours = stat.st_uid == os.geteuid() and not stat.st_mode & 0o022
    if not ours:
        file.close()
        raise Refused(
            f"{path}: not read, since another user owns it or could have written it, and reading "
            "a pickle runs code; where it is your own, chmod go-w it"
        )
    return file


def load_value(path: str, select: Sequence[Any] = ()) -> Any:
    """Load the value of a good outcome, or the part of it that ``select`` leads to."""
    with open_trusted(path) as file:
        load(file)
        value = load(file)
    for step in select:
        value = value[step]
    return value


def load_values(folder: str, keys: bytes, select: Sequence[Any] = ()) -> list[Any]:
    """Load the values of many outcomes of one node; ``keys`` are 16 bytes each."""
    names = (keys[at : at + 16].hex() for at in range(0, len(keys), 16))
    return [load_value(f"{folder}/{name}.pkl", select) for name in names]


def write_outcome(part: str, final: str, record: dict[str, Any], value: bytes) -> None:
    """Write an outcome beside its place, then put it there by a rename: all of it or nothing."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        data = dumps(record, 4) + value
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, final)


def dump_any(value: Any) -> bytes:
    """Pickle what a task returns; what plain pickle cannot, cloudpickle may, or TypeError."""
    # Classes of the workflow's file came by cloudpickle; plain pickle would import that file here.
    if "cloudpickle" not in sys.modules:
        try:
            return dumps(value, 5)
        except (PickleError, AttributeError, TypeError):
            pass  # on to what takes more
    import cloudpickle

    try:
        return cloudpickle.dumps(value, 5)  # type: ignore[no-any-return]
    except Exception as error:
        kind = type(value).__qualname__
        raise TypeError(f"it returned a {kind} that cannot be pickled: {error}") from None
