"""Runs inside the job: one element of a batch, one outcome on disk.

Imports next to nothing, since a thousand elements pay for every import a thousand times: C
modules in place of their Python faces (`_pickle`, `_signal`, `resource`), and of hpcpipe only what
an outcome is. It is also where the format of a batch's task file is written down.

**Task file** ``batches/<batch>.tasks``: a magic line; the length of the header; the header, a
pickled dict; then, for every task, the offset and length of its row; the rows. A row says which
task it is, what it waits for, where in the plan (`hpcpipe.store.plan`) its arguments are, what its
input files were (`hpcpipe.worker.inputs`), and where an earlier job of it that may not have ended
would leave its result. The script that starts this has compared the file's digest.
"""

from __future__ import annotations

import os
import sys
import time
from _blake2 import blake2b
from _pickle import loads

from hpcpipe.worker.cgroup import count_kills
from hpcpipe.worker.claim import Held, sign, take
from hpcpipe.worker.fork import guard, say, settle, start, untie, wait, wake, waking
from hpcpipe.worker.outcome import (
    CLAIMED,
    FULL,
    NO_ENVIRONMENT,
    NO_SPACE,
    UPSTREAM_FAILED,
    Refused,
    append_outcome,
    claim_path,
    copy_outcome,
    dict_of,
    error_path,
    look_up,
    open_trusted,
    pack_path,
    result_path,
    write_outcome,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MAGIC = b"hpcpipe tasks 4\n"
ENTRY = 16  # bytes of an index entry: offset 8, length 8


# --- one element --------------------------------------------------------------------------------


class TaskFile:
    """A task file, opened: its header, and the payloads of one element."""

    def __init__(self, path: str, position: int) -> None:
        with open_trusted(path) as file:
            if file.readline() != MAGIC:
                raise Refused(f"{path}: not a task file of this version of hpcpipe")
            length = int.from_bytes(file.read(8), "little")
            self.header = loads(file.read(length))
            index = file.read(self.header["count"] * ENTRY)
            self.batch = os.path.basename(path).removesuffix(".tasks")
            starts = self.header.get("starts")
            first, last = (
                (position, position + 1) if starts is None else starts[position : position + 2]
            )
            self.pack = None if starts is None else pack_path(self.batch, position)
            here = file.tell()
            self.payloads = []
            for at in range(first * ENTRY, last * ENTRY, ENTRY):
                file.seek(here + int.from_bytes(index[at : at + 8], "little"))
                self.payloads.append(file.read(int.from_bytes(index[at + 8 : at + 16], "little")))


class Element:
    """One task of an element, read out of the task file, with the places it writes to.

    ``log`` is what it writes to while others run beside it, in a ``lane`` each.
    """

    def __init__(self, file: TaskFile, number: int, job: str, attempt: str, mine: str) -> None:
        self.header, self.pack = file.header, file.pack
        facts = loads(file.payloads[number])
        self.node, self.key, self.folder, self.call, needs, packed, *facts = facts
        self.entry, self.above, self.inputs, *self.elsewhere = facts
        paths = [*packed, *(path for path, _ in needs)]
        self.packed = {path[-32:]: path for path in paths if path[-33:-32] == "#"}
        self.needs = [
            (f"{self.pack}{path}" if path.startswith("#") else path, batch) for path, batch in needs
        ]
        self.batch = file.batch
        self.job, self.attempt, self.started = job, int(attempt or 0), 0.0
        self.mine = mine  # what this process writes into a claim
        self.lane, self.size = 0, 0
        self.home = -1  # the run's folder, whose name may change while the task runs
        self.log = f"logs/{file.batch}.{self.key}.out" if file.header["lanes"] > 1 else ""
        self.good = result_path(self.node, self.key)
        self.bad = error_path(self.node, self.key, file.batch)
        self.claim = claim_path(self.node, self.key)
        self.partial = ""  # where its outcome goes if it goes on without some tasks upstream,
        self.missing: list[tuple[str, str]] = []  # which are these: nodes and keys

    def arguments(self) -> bytes:
        """Read what the task is called with, in the plan's file."""
        path = self.header["payloads"][self.call]
        with open_trusted(path) as file:
            file.seek(int.from_bytes(self.entry[:8], "little"))
            payload = file.read(int.from_bytes(self.entry[8:16], "little"))
        if blake2b(payload, digest_size=16).digest() != self.entry[16:]:
            raise Refused(f"{path}: changed since it was submitted")
        return payload

    def begin(self) -> None:
        """Record when it begins, and how large its pack is then."""
        self.started = time.time()
        self.kills = count_kills()
        if self.pack:
            try:
                self.size = os.stat(self.pack).st_size
            except FileNotFoundError:
                self.size = 0

    def keep(self, good: bool, facts: dict[str, Any], value: bytes) -> None:
        """Write the outcome: in place of the claim, or into the pack, or both.

        An earlier job of the task that has not ended does not look into this pack.
        """
        if self.pack and not (good and self.partial):
            append_outcome(self.pack, self.key, good, facts, value)
        if not self.pack or (good and (self.elsewhere or self.partial)):
            final = (self.partial or self.good) if good else self.bad
            write_outcome(self.claim, final, self.key, good, facts, value)

    def release(self) -> None:
        """Let go of the claim, unless it has become the outcome."""
        if self.partial and os.path.exists(self.partial):
            return
        if self.pack and not (self.elsewhere and os.path.exists(self.good)):
            os.unlink(self.claim)

    def record(self, **facts: Any) -> dict[str, Any]:
        """Return where and when this ran; times in seconds, ``max_memory`` in KiB."""
        return {
            "job": self.job,
            "attempt": self.attempt,
            "host": os.uname().nodename,
            "start": self.started,
            "wall": time.time() - self.started,
            **({"missing": self.missing} if self.missing else {}),
            **facts,
        }


def missing_upstream(needs: Sequence[tuple[str, str]], settle: float) -> str | None:
    """Return an upstream that has not succeeded, or None.

    A common filesystem may show a file late: wait ``settle`` seconds for it, unless its error
    is there. Listing the folder makes an NFS client look again. What is to be of no batch is in the
    element's own pack already, or never will be.
    """
    until = time.monotonic() + settle
    for where, batch in needs:
        while not (state := look_up(where, batch)):
            if state is False or not batch or time.monotonic() > until:
                return where
            os.listdir(os.path.dirname(where))
            time.sleep(0.5)
    return None


def has_succeeded(element: Element) -> bool:
    """Return whether a task has succeeded here, or in an earlier job that has not ended.

    What that job has left is copied to where those that wait for this one look for it.
    """
    if element.partial and os.path.exists(element.partial):
        return True
    if os.path.exists(element.good):
        where = element.good
    else:
        where = next((one for one in element.elsewhere if look_up(one, "")), "")
    if where and (element.pack or where != element.good):
        part = f"{element.claim}.{os.getpid()}"
        copy_outcome(where, element.key, element.pack, part, element.good)
    return bool(where)


def find_bar(element: Element) -> tuple[int, str] | None:
    """Return why a task must not run: an exit code (0 if it has succeeded) and words, or None."""
    if has_succeeded(element):
        return 0, ""
    if "partial" in element.header:
        from hpcpipe.worker.partial import look_upstream

        return look_upstream(element) or ((0, "") if has_succeeded(element) else None)
    absent = missing_upstream(element.needs, element.header["settle"])
    if absent is None:
        return None
    return UPSTREAM_FAILED, f"upstream failed: no result at {absent}"


def claim(element: Element) -> tuple[int, str] | None:
    """Claim a task, unless it must not run: then return why, as `find_bar` does.

    Whether it has succeeded is looked for before, which is cheap, and again once it is claimed: its
    last holder may have ended in between.
    """
    if bar := find_bar(element):
        return bar
    try:
        again = take(element.claim, element.mine)
    except Held as holder:
        return CLAIMED, f"{element.claim} is claimed by {holder}"
    packed = again and element.pack and dict_of(element.pack).get(element.key)
    if packed or has_succeeded(element):
        os.unlink(element.claim)
        return 0, ""
    if element.header["wakes"] or element.header["early"]:
        from hpcpipe.worker.fallen import attend

        attend(element)
    return None


def run_alone(file: TaskFile, job: str, attempt: str, mine: str) -> int:
    """Run the only task of an element, unless it must not; return an exit code."""
    element = Element(file, 0, job, attempt, mine)
    if bar := claim(element):
        sys.stderr.write(f"hpcpipe: {bar[1]}\n" if bar[0] else "")
        return bar[0]
    guard(file.header)
    _, status, used = wait(start(element))
    return settle(element, status, used)


def main(run: Callable[[TaskFile, str, str, str], int] = run_alone) -> None:
    """Run the element named on the command line: task file, position, job id, and restart count
    (empty where it is not counted).

    The working folder is the run's own. Leaves with 0, 1 for a task that failed, or one of the
    reserved codes.
    """
    try:
        file = TaskFile(sys.argv[1], int(sys.argv[2]))
    except Refused as error:
        sys.stderr.write(f"hpcpipe: {error}\n")
        os._exit(1)
    header = file.header
    if header["python"] != sys.implementation.cache_tag:
        sys.stderr.write(
            f"hpcpipe: submitted with {header['python']} ({header['executable']}), but "
            f"{os.uname().nodename} starts {sys.implementation.cache_tag} ({sys.executable})\n"
        )
        os._exit(NO_ENVIRONMENT)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    job, attempt = sys.argv[3:5]
    try:
        code = run(file, job, attempt, sign(job, attempt, file.batch))
    except OSError as error:
        if error.errno not in FULL:
            raise
        code = NO_SPACE
        say(f"hpcpipe: {error.filename or 'the outcome'}: {error.strerror}\n")
    finally:
        untie()
    if int(sys.argv[2]) in header["wakes_at"]:
        wake()
    for one in waking:
        try:
            os.waitpid(one, 0)
        except ChildProcessError:
            continue  # a pack has seen it end
    os._exit(code)
