"""Runs inside the job: one element of a batch, one outcome on disk.

Imports next to nothing, since a thousand elements pay for every import a thousand times: C
modules in place of their Python faces (`_pickle`, `_signal`, `resource`), and of hpcpipe only what
an outcome is. It is also where the format of a batch's task file is written down.

**Task file** ``batches/<batch>.tasks``: a magic line; the length of the header; the header, a
pickled dict; then, for every element, the offset, length and digest of its payload; the payloads.
"""

from __future__ import annotations

import os
import sys
import time
from _blake2 import blake2b
from _pickle import loads

from hpcpipe.child import heed, settle, start, wait
from hpcpipe.outcome import (
    CLAIMED,
    NO_ENVIRONMENT,
    UPSTREAM_FAILED,
    Refused,
    append_outcome,
    scan_pack,
    write_outcome,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MAGIC = b"hpcpipe tasks 1\n"
ENTRY = 32  # bytes of an index entry: offset 8, length 8, digest 16


# --- one element --------------------------------------------------------------------------------


class TaskFile:
    """A task file, opened: its header, and the payloads of one element."""

    def __init__(self, path: str, position: int) -> None:
        with open(path, "rb") as file:
            if file.readline() != MAGIC:
                raise Refused(f"{path}: not a task file of this version of hpcpipe")
            length = int.from_bytes(file.read(8), "little")
            self.header = load_checked(file.read(length), path)
            index = file.read(self.header["count"] * ENTRY)
            if blake2b(index).digest() != self.header["index"]:
                raise Refused(f"{path}: changed since it was submitted")
            self.batch = os.path.basename(path).removesuffix(".tasks")
            starts = self.header.get("starts")
            first, last = (
                (position, position + 1) if starts is None else starts[position : position + 2]
            )
            self.pack = None if starts is None else f"packs/{self.batch}.{position}.pack"
            here = file.tell()
            self.payloads = []
            for at in range(first * ENTRY, last * ENTRY, ENTRY):
                file.seek(here + int.from_bytes(index[at : at + 8], "little"))
                payload = file.read(int.from_bytes(index[at + 8 : at + 16], "little"))
                if blake2b(payload, digest_size=16).digest() != index[at + 16 : at + ENTRY]:
                    raise Refused(f"{path}: changed since it was submitted")
                self.payloads.append(payload)


class Element:
    """One task of an element, read out of the task file, with the places it writes to.

    ``log`` is what it writes to while others run beside it, in a ``lane`` each.
    """

    def __init__(self, file: TaskFile, number: int, job: str, attempt: str) -> None:
        self.header, self.pack = file.header, file.pack
        self.node, self.key, self.folder, self.call, self.needs, self.arguments = loads(
            file.payloads[number]
        )
        self.needs = [
            (f"{self.pack}{path}" if path.startswith("#") else path, batch)
            for path, batch in self.needs
        ]
        self.job, self.attempt, self.started = job, int(attempt or 0), 0.0
        self.lane, self.size = 0, 0
        self.log = f"logs/{file.batch}.{self.key}.out" if file.header["lanes"] > 1 else ""
        self.good = f"results/{self.node}/{self.key}.pkl"
        self.bad = f"results/{self.node}/{self.key}.{file.batch}.err"
        # What a process holds while it runs a task, or all tasks of a pack.
        self.claim = f"{self.pack or f'results/{self.node}/{self.key}'}.claim"

    def begin(self) -> None:
        """Note when it begins, and how large its pack is then."""
        self.started = time.time()
        if self.pack:
            try:
                self.size = os.stat(self.pack).st_size
            except FileNotFoundError:
                self.size = 0

    def keep(self, good: bool, facts: dict[str, Any], value: bytes) -> None:
        """Write the outcome: in place of the claim, or into the pack."""
        if self.pack:
            append_outcome(self.pack, self.key, good, facts, value)
        else:
            write_outcome(self.claim, self.good if good else self.bad, facts, value)

    def record(self, **facts: Any) -> dict[str, Any]:
        """Say where and when this ran; times in seconds, ``max_memory`` in KiB."""
        return {
            "job": self.job,
            "attempt": self.attempt,
            "host": os.uname().nodename,
            "start": self.started,
            "wall": time.time() - self.started,
            **facts,
        }


def load_checked(header: bytes, tasks: str) -> Any:
    """Load a header, whose digest the file's name ends in: nobody changed it since."""
    digest = blake2b(header, digest_size=4).hexdigest()
    if not tasks.endswith(f"-{digest}.tasks"):
        raise Refused(f"{tasks}: changed since it was submitted")
    return loads(header)


def missing_upstream(needs: Sequence[tuple[str, str]], settle: float) -> str | None:
    """Name an upstream whose good outcome is not there, or None.

    A common filesystem may show a file late: wait ``settle`` seconds for it, unless its error
    is there. Listing the folder makes an NFS client look again. What is to be of no batch is in the
    element's own pack already, or never will be.
    """
    until = time.monotonic() + settle
    for path, batch in needs:
        while not os.path.exists(path):
            pack, _, key = path.rpartition("#")
            good = dict_of(pack).get(key) if pack.endswith(".pack") else None
            if good:
                break
            failed = good is False or not batch or os.path.exists(f"{path[:-4]}.{batch}.err")
            if failed or time.monotonic() > until:
                return path
            os.listdir(os.path.dirname(path))
            time.sleep(0.5)
    return None


def dict_of(pack: str) -> dict[str, bool]:
    """Tell of every task with an outcome in a pack whether it is good."""
    try:
        return {key: good for key, good, _ in scan_pack(pack)}
    except FileNotFoundError:
        return {}


def take_claim(element: Element) -> str | None:
    """Claim a task for this process; return who holds it if another does.

    The claim is the file that becomes the outcome. One left by an earlier start of the same job
    (a requeue), or by a process of this host that is gone, is taken over.
    """
    host = os.uname().nodename
    mine = f"{host} {os.getpid()} {element.job}\n"
    for _ in range(2):
        try:
            fd = os.open(element.claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            try:
                with open(element.claim, errors="replace") as file:
                    holder = file.readline()
            except FileNotFoundError:
                continue  # it was let go between the two looks
            if len(holder.split()) != 3:  # of one killed while it wrote its claim or its outcome
                return "an unknown process"
            their_host, pid, job = holder.split()
            gone = (
                their_host == host
                and not os.path.exists(f"/proc/{pid}")
                and sys.platform == "linux"
            )
            if job != element.job and not gone:
                return holder.strip()
            os.unlink(element.claim)
        else:
            os.write(fd, mine.encode())
            os.close(fd)
            return None
    return "another process"


def barred(element: Element) -> tuple[int, str] | None:
    """Say why a task is not to run: an exit code and words, none if it is done; None if it is."""
    if os.path.exists(element.good):
        return 0, ""
    absent = missing_upstream(element.needs, element.header["settle"])
    if absent is None:
        return None
    return UPSTREAM_FAILED, f"hpcpipe: upstream failed: no good outcome at {absent}\n"


def hold(element: Element) -> None:
    """Take the claim, or leave."""
    holder = take_claim(element)
    if holder is not None:
        sys.stderr.write(f"hpcpipe: {element.claim} is claimed by {holder}\n")
        os._exit(CLAIMED)


def run_alone(file: TaskFile, job: str, attempt: str) -> int:
    """Run the only task of an element, unless it is barred; return an exit code."""
    element = Element(file, 0, job, attempt)
    if why := barred(element):
        sys.stderr.write(why[1])
        return why[0]
    hold(element)
    heed()
    _, status, used = wait(start(element))
    return settle(element, status, used)


def main(run: Callable[[TaskFile, str, str], int] = run_alone) -> None:
    """Run the element named on the command line: task file, position, job id, restart count.

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
    os._exit(run(file, *sys.argv[3:5]))
