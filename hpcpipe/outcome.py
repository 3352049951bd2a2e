"""What a task leaves on disk, how it is written, and who may read it.

``results/<node>/<key>.pkl`` (good) or ``<key>.<batch>.err`` (not good): two pickles one after the
other. First a dict of plain values (see `hpcpipe.worker.Element.record`), so that a report can read
how a task went without loading what it returned; then the value, or the exception. Imported by
every worker, so this imports next to nothing.

An element of several tasks leaves one file instead, ``packs/<batch>.<position>.pack``, to which the
outcomes are appended one by one: a newline; a line of the task's key, ``ok`` or ``err`` and the
length of what follows; the two pickles; a newline. Each is one write to a file that was opened for
appending, which several processes of a host can do at a time. An outcome that is cut short (its
writer was killed, or there was no space) is none, and what comes next still begins a line.
``<file>.pack#<key>`` names one of them, and ``#<key>`` one of the element's own pack: of a task
that runs before, in the same element.
"""

from __future__ import annotations

import os
import sys
from _pickle import PickleError, dumps, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO


# Exit codes of a worker that no scheduler reads a meaning in, where it left no outcome.
UPSTREAM_FAILED, CLAIMED, NO_ENVIRONMENT, OVER_MEMORY = 86, 87, 88, 89

own_pack = ""  # of the element that runs in this process, set by the worker


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
    if path.startswith("#"):
        path = own_pack + path
    pack, _, key = path.rpartition("#")
    packed = pack.endswith(".pack")
    with open_trusted(pack if packed else path) as file:
        if packed:
            file.seek(_offset(pack, key))
        load(file)
        value = load(file)
    for step in select:
        value = value[step]
    return value


def load_values(
    folder: str, keys: bytes, select: Sequence[Any] = (), packed: Sequence[str] = ()
) -> list[Any]:
    """Load the values of many outcomes of one node; ``keys`` are 16 bytes each.

    ``packed`` names those that are in packs, in the same order; '' stands for a file in ``folder``.
    """
    names = (keys[at : at + 16].hex() for at in range(0, len(keys), 16))
    if not packed:
        return [load_value(f"{folder}/{name}.pkl", select) for name in names]
    return [
        load_value(where or f"{folder}/{name}.pkl", select)
        for name, where in zip(names, packed, strict=True)
    ]


def scan_pack(path: str, since: int = 0) -> list[tuple[str, bool, int]]:
    """List the outcomes in a pack: key, whether it is good, and where its pickles begin.

    ``since`` is a size it once had: only what came later. Raises Refused or OSError as
    `open_trusted`.
    """
    found = []
    with open_trusted(path) as file:
        file.seek(since)
        while line := file.readline():
            words = line.split()
            if len(words) != 3 or len(words[0]) != 32 or words[1] not in (b"ok", b"err"):
                continue  # within what was cut short
            at = file.tell()
            file.seek(int(words[2]), os.SEEK_CUR)
            if file.read(1) == b"\n":
                found.append((words[0].decode(), words[1] == b"ok", at))
            else:
                file.seek(at)
    return found


_packs: dict[str, tuple[int, dict[str, int]]] = {}  # by path: the size it had, good outcomes


def _offset(path: str, key: str) -> int:
    """Find a good outcome in a pack; raises FileNotFoundError where it is not there."""
    size = os.stat(path).st_size
    if path not in _packs or _packs[path][0] != size:
        _packs[path] = size, {name: at for name, good, at in scan_pack(path) if good}
    if key not in _packs[path][1]:
        raise FileNotFoundError(f"{path}: holds no good outcome of {key}")
    return _packs[path][1][key]


def append_outcome(pack: str, key: str, good: bool, record: dict[str, Any], value: bytes) -> None:
    """Append an outcome to a pack, in one write."""
    data = dumps(record, 4) + value
    whole = f"\n{key} {'ok' if good else 'err'} {len(data)}\n".encode() + data + b"\n"
    fd = os.open(pack, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.write(fd, whole) < len(whole):
            raise OSError(f"{pack}: no space for the outcome of {key}")
    finally:
        os.close(fd)


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
