"""What a task leaves on disk, how it is written, and who may read it.

``results/<node>/<key>.pkl`` (succeeded) or ``<key>.<batch>.err`` (failed): a line of the task's
key, ``ok`` or ``err``, the length of what follows and its digest; two pickles; a newline. The first
pickle is a dict of plain values (see `hpcpipe.worker.task.Element.record`), so that a report can
read how a task went without loading what it returned; the second the value, or the exception. The
digest is of key, ``ok`` or ``err``, and pickles. ``sh`` writes ``=`` for it and the pickles twice
over, which takes no process. Imported by every worker, so this imports next to nothing.

An element of several tasks leaves one file instead, ``packs/<batch>.<position>.pack``, to which the
outcomes are appended one by one, each after a newline. Each is one write to a file that was opened
for appending, which several processes of a host can do at a time. An outcome that is cut short (its
writer was killed, or there was no space) does not count, and the next still begins a line.
``<file>.pack#<key>`` names one of them, and ``#<key>`` one of the element's own pack: of a task
that runs before, in the same element.

``results/<node>/<key>.<batch>.part`` is the outcome of a task that succeeded without some of those
upstream, which its gather allows (see `hpcpipe.worker.partial`): its record names these. It has a
name of its own since it is not the result that the key stands for.

``results/<node>/<key>.damaged`` is what whoever found an outcome damaged makes of it; of one in a
pack, a file that names the pack. The task counts as not done until it succeeds again.
"""

from __future__ import annotations

import os
import sys
from _blake2 import blake2b
from _pickle import PickleError, dumps, load
from errno import EDQUOT, ENOSPC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, BinaryIO


# Exit codes of a worker that no scheduler reads a meaning in, where it left no outcome.
CANCELLED, UPSTREAM_FAILED, CLAIMED, NO_ENVIRONMENT, OVER_MEMORY = range(85, 90)
UNTRUSTED, NOT_STARTED, NO_LOG = 90, 91, 92  # the last: its log could not be opened
NO_SPACE = 93  # an outcome could not be written
CHECKPOINTED = 85  # of a task itself, not of its worker: it has saved its state; as in HTCondor
FULL = (ENOSPC, EDQUOT)

# Of the task that runs in this process, set by the worker: the pack of its element, the run's
# ``.hpcpipe``, the node and the keys upstream along each edge, and which of them are in packs; of a
# node mapped over what a task returned, also the number of its element, and a command's folder.
own_pack = home = ""
above: Sequence[tuple[Any, ...]] = ()
packed: dict[str, str] = {}
loose: Sequence[int] = ()  # edges along which files come that others may have changed in place


TWICE = b"="  # in place of a digest: what follows is there twice
_LINE = 128  # bytes that the first line of an outcome has at most
MARK = "hpcpipe: task "  # begins the line before a packed task's own in the log: node and key
OWNER = ".hpcpipe-task"  # in a task's folder: the keys and packs of the task that ran there last
FOLDERS = ("results", "packs", "cancelled")  # below the run's home


def result_path(node: str, key: str) -> str:
    """Name the outcome of a task that succeeded, relative to the run's home like all of these."""
    return f"results/{node}/{key}.pkl"


def error_path(node: str, key: str, batch: str) -> str:
    """Name the outcome of a task that failed in a batch."""
    return f"results/{node}/{key}.{batch}.err"


def partial_path(node: str, key: str, batch: str) -> str:
    """Name the outcome of a task that succeeded in a batch without some of those upstream."""
    return f"results/{node}/{key}.{batch}.part"


def claim_path(node: str, key: str) -> str:
    """Name the claim of whoever runs a task; a digit at its end is one that is taken over."""
    return f"results/{node}/{key}.claim"


def damaged_path(node: str, key: str) -> str:
    """Name what shows that the outcome of a task that succeeded was found damaged."""
    return f"results/{node}/{key}.damaged"


def pack_path(batch: str, position: int | str) -> str:
    """Name the file with the outcomes of an element of several tasks."""
    return f"packs/{batch}.{position}.pack"


def batch_of(pack: str) -> str:
    """Name the batch of a pack."""
    return os.path.basename(pack).rsplit(".", 2)[0]


def cancelled_path(batch: str) -> str:
    """Name the file that lists which elements of a batch were cancelled."""
    return f"cancelled/{batch}"


def parse_name(name: str) -> tuple[str, str, str]:
    """Parse the name of a file in a node's folder: a key, what the file is, and a batch."""
    key, _, kind = name.partition(".")
    if kind == "pkl":
        return key, "result", ""
    if kind.endswith(".err"):
        return key, "error", kind[:-4]
    if kind.endswith(".part"):
        return key, "partial", kind[:-5]
    if kind == "damaged":
        return key, kind, ""
    if kind.startswith("claim"):
        return key, "ticket" if kind[5:] else "claim", ""
    return key, "", ""


def look_up(where: str, batch: str) -> bool | None:
    """Return whether a task has succeeded, or failed in a batch; None if it has done neither."""
    pack, _, key = where.rpartition("#")
    if pack:
        try:
            return _read_pack(pack).get(key, (None, 0))[0]
        except FileNotFoundError:
            return None
    if os.path.exists(where):
        return True
    return False if os.path.exists(f"{where[:-4]}.{batch}.err") else None


class Refused(Exception):
    """A pickle that another user owns or could have written, or one that was changed."""


class Damaged(Exception):
    """An outcome that is no longer what was written."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


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


def load_value(path: str) -> Any:
    """Load the value of a task that succeeded; raises Damaged, Refused or OSError."""
    return load_result(path)[1]


def load_result(path: str) -> tuple[dict[str, Any], Any]:
    """Load the record and the value of a task that succeeded; raises as `load_value`."""
    with open_result(path) as file:
        return load(file), load(file)


def load_paths(path: str, *, sh: bool) -> tuple[list[str], dict[str, Any]]:
    """Load the paths that a task returned, and its record; raises as `load_value`."""
    with open_result(path) as file:
        record = load(file)
        return [*paths_in(load(file))] if sh else record.get("paths", []), record


def open_result(path: str) -> BinaryIO:
    """Open the outcome of a task that succeeded at its pickles, once it was checked."""
    if path.startswith("#"):
        path = own_pack + path
    pack, _, key = path.rpartition("#")
    packed = pack.endswith(".pack")
    file = open_trusted(pack if packed else path)
    try:
        if packed:
            file.seek(_offset(pack, key))
        seek_pickles(file, key if packed else os.path.basename(path).partition(".")[0])
    except BaseException:
        file.close()
        raise
    return file


def paths_in(value: Any) -> Iterator[str]:
    """Yield the paths in a value, or in the lists, tuples and dicts that it consists of."""
    if "pathlib" not in sys.modules:
        return
    from pathlib import Path

    if isinstance(value, Path):
        yield str(value)
    elif type(value) in (list, tuple, dict):
        for item in value.values() if type(value) is dict else value:
            yield from paths_in(item)


def seek_pickles(file: BinaryIO, key: str, most: int | None = None) -> None:
    """Check a task's outcome that begins here, and go to its pickles; raises Damaged.

    Of one longer than ``most`` bytes, if given, only the length is checked.
    """
    words = file.readline(_LINE).split()
    at = file.tell()
    try:
        name, kind, length, digest = words
        size = int(length)
        whole = kind in (b"ok", b"err") and name == key.encode()
    except ValueError:
        whole = False
    if whole and most is not None and size > most:
        file.seek(at + size)
        whole = file.read(1) == b"\n"
    elif whole and digest == TWICE:
        text = file.read(size + 1)
        half = size // 2
        whole = text[half:] == text[:half] + b"\n"
    elif whole:
        state = blake2b(name + kind, digest_size=16)
        while size and (block := file.read(min(size, 1 << 20))):
            state.update(block)
            size -= len(block)
        whole = state.hexdigest().encode() == digest and file.read(1) == b"\n"
    if not whole:
        raise Damaged(f"{file.name}: damaged, as it is not what was written")
    file.seek(at)


def load_upstream(edge: int, select: Sequence[Any] = ()) -> Any:
    """Load the value that comes along an edge, or a part of it."""
    (value,) = load_upstreams(edge, select)
    return value


def load_part(edge: int, select: Sequence[Any] = ()) -> Any:
    """Load the element of a list that comes along an edge which this task is for."""
    return load_upstream(edge, (*select, above[edge][2]))


def load_number() -> int:
    """Return which element of a list this task is for."""
    return int(above[-1][0])


def load_folder() -> str:
    """Return the working folder of the command that this task runs."""
    return str(above[-1][0])


def load_upstreams(edge: int, select: Sequence[Any] = ()) -> list[Any]:
    """Load all values that come along an edge, or a part of each.

    Raises Damaged for one that is not what was written, and InputChanged for one of which a file
    was changed: either is made again at the next submission.
    """
    node, keys = above[edge][:2]
    values = []
    made: dict[str, list[Any]] = {}
    for at in range(0, len(keys), 16):
        key = keys[at : at + 16].hex()
        path = packed.get(key) or f"results/{node}/{key}.pkl"
        path = path if path.startswith("#") else os.path.join(home, path)
        try:
            record, value = load_result(path)
        except Damaged as error:
            disown(home, node, key, f"{own_pack}{path}" if path.startswith("#") else path)
            raise Damaged(
                f"the result of {node} is damaged, so that it must be made again"
            ) from error
        if "files" in record and edge not in loose:
            from hpcpipe.worker.made import noted

            for one, facts in noted(record, record.get("paths") or [*paths_in(value)]).items():
                made.setdefault(one, []).append(facts)
        for step in select:
            value = value[step]
        values.append(value)
    if made:
        from hpcpipe.worker.made import check

        check(made, node)
    return values


def disown(home: str, node: str, key: str, path: str) -> None:
    """Record that the outcome of a task at a path was found damaged, so that it does not count."""
    mark = os.path.join(home, damaged_path(node, key))
    pack, _, _ = path.rpartition("#")
    if not pack.endswith(".pack"):
        os.replace(path, mark)
        return
    fd = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"packs/{os.path.basename(pack)}\n".encode())
    os.close(fd)


def take_folder(home: str, folder: str, node: str, key: str, pack: str | None) -> None:
    """Make a task's folder, and note in it whose files it has.

    A folder is named by what a task is mapped over, a key by all that its result depends on: an
    earlier version of a task may have left files here, and is about to lose them. Its outcome must
    not count any more.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, OWNER)
    mine = f"{key} {pack or ''}".strip()
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        lines = []
    if mine in lines:
        return
    others = [line.split() for line in lines if line.split()[:1] != [key]]
    for other, *packs in others:
        for where in packs:
            disown(home, node, other, f"{where}#{other}")
        if os.path.exists(alone := os.path.join(home, result_path(node, other))):
            os.unlink(alone)
    with open(path, "w" if others else "a", encoding="ascii") as file:
        file.write(f"{mine}\n")


def forget_partial(node: str, key: str, batch: str) -> None:
    """Remove what a task left in other batches without some of those upstream.

    It is about to write the files that these name.
    """
    folder, own = os.path.split(os.path.join(home, partial_path(node, key, batch)))
    for name in os.listdir(folder):
        if name.startswith(f"{key}.") and name.endswith(".part") and name != own:
            os.unlink(os.path.join(folder, name))


def scan_pack(path: str, since: int = 0) -> list[tuple[str, bool, int]]:
    """Return the outcomes in a pack: key, whether it succeeded, and where it begins.

    ``since`` is a size it once had: only what came later. Raises Refused or OSError as
    `open_trusted`.
    """
    found = []
    with open_trusted(path) as file:
        file.seek(since)
        while line := file.readline():
            words = line.split()
            if len(words) != 4 or not _begins(*words):
                continue  # within what was cut short
            at = file.tell()
            file.seek(int(words[2]), os.SEEK_CUR)
            if file.read(1) == b"\n":
                found.append((words[0].decode(), words[1] == b"ok", at - len(line)))
            else:
                file.seek(at)
    return found


def _begins(key: bytes, kind: bytes, length: bytes, _: bytes) -> bool:
    """Return whether these are the words of an outcome's first line."""
    known = kind in (b"ok", b"err") and len(key) == 32 and key.isalnum() and key.isascii()
    return known and length.isdigit()


# By path: the size it had, where its last outcome begins, and each task: did it succeed, and where?
# Each task of a pack may ask about others in it, so that only what came since is read.
_packs: dict[str, tuple[int, int, dict[str, tuple[bool, int]]]] = {}


def _read_pack(path: str) -> dict[str, tuple[bool, int]]:
    size = os.stat(path).st_size
    seen, last, tasks = _packs.get(path, (0, 0, {}))
    if size < seen:
        last, tasks = 0, {}
    if size != seen:
        for key, good, at in scan_pack(path, last):
            last = at
            if good or key not in tasks:
                tasks[key] = good, at
        _packs[path] = size, last, tasks
    return tasks


def dict_of(pack: str) -> dict[str, bool]:
    """Return for every task with an outcome in a pack whether it has succeeded."""
    try:
        return {key: good for key, (good, _) in _read_pack(pack).items()}
    except FileNotFoundError:
        return {}


def _offset(path: str, key: str) -> int:
    """Find the result of a task in a pack; raises FileNotFoundError if it is not there."""
    good, at = _read_pack(path).get(key, (False, 0))
    if not good:
        raise FileNotFoundError(f"{path}: holds no result of {key}")
    return at


def seal(key: str, good: bool, data: bytes) -> bytes:
    """Put before an outcome's pickles the line by which it can be checked."""
    kind = "ok" if good else "err"
    digest = blake2b(f"{key}{kind}".encode(), digest_size=16)
    digest.update(data)
    return f"{key} {kind} {len(data)} {digest.hexdigest()}\n".encode() + data + b"\n"


def copy_outcome(where: str, key: str, pack: str | None, part: str, final: str) -> None:
    """Copy the outcome of a task that succeeded into a pack, or into a file of its own."""
    source, _, packed = where.rpartition("#")
    with open_trusted(source or where) as file:
        if packed and source:
            file.seek(_offset(source, key))
        line = file.readline(_LINE)
        data = line + file.read(int(line.split()[2]) + 1)
    if pack:
        append(pack, data)
    else:
        write(part, final, data)


def append_outcome(pack: str, key: str, good: bool, record: dict[str, Any], value: bytes) -> None:
    """Append an outcome to a pack."""
    append(pack, seal(key, good, dumps(record, 4) + value))


def append(pack: str, data: bytes) -> None:
    """Append a sealed outcome to a pack, in one write."""
    whole = b"\n" + data
    fd = os.open(pack, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.write(fd, whole) < len(whole):
            raise OSError(ENOSPC, os.strerror(ENOSPC), pack)
    finally:
        os.close(fd)


def write_outcome(
    part: str, final: str, key: str, good: bool, record: dict[str, Any], value: bytes
) -> None:
    """Write an outcome to its place."""
    write(part, final, seal(key, good, dumps(record, 4) + value))


def write(part: str, final: str, data: bytes) -> None:
    """Write a sealed outcome beside its place, then rename it: all of it is there, or nothing."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    except OSError:  # leave its space to the record of this failure
        os.close(os.open(part, os.O_WRONLY | os.O_TRUNC))
        raise
    finally:
        os.close(fd)
    os.rename(part, final)


def dump_any(value: Any) -> bytes:
    """Pickle what a task returns; what plain pickle cannot, cloudpickle may, or TypeError."""
    # Classes of the workflow's file came by cloudpickle; plain pickle would import that file here.
    own: dict[str, Any] = getattr(sys.modules.get("hpcpipe.worker.unpickle"), "shipped", {})
    if "cloudpickle" not in sys.modules:
        try:
            data = dumps(value, 5)
        except (PickleError, AttributeError, TypeError):
            pass  # on to what takes more
        else:
            if not any(name.encode() in data for name in own):
                return data
    import cloudpickle

    for module in own.values():  # by name, its file would be imported where it is read
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(value, 5)  # type: ignore[no-any-return]
    except Exception as error:
        kind = type(value).__qualname__
        raise TypeError(f"it returned a {kind} that cannot be pickled: {error}") from None
