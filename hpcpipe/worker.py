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
from _pickle import dumps, loads
from _signal import SIG_DFL, SIGTERM, signal  # type: ignore[import-not-found]

from hpcpipe.outcome import Refused, dump_any, write_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAGIC = b"hpcpipe tasks 1\n"
ENTRY = 32  # bytes of an index entry: offset 8, length 8, digest 16
UPSTREAM_FAILED, CLAIMED, NO_ENVIRONMENT = 86, 87, 88  # exit codes no scheduler reads a meaning in


# --- one element --------------------------------------------------------------------------------


class Element:
    """One element of a batch, read out of the task file, with the places it writes to."""

    def __init__(self, tasks: str, position: int, job: str, attempt: str) -> None:
        with open(tasks, "rb") as file:
            if file.readline() != MAGIC:
                raise Refused(f"{tasks}: not a task file of this version of hpcpipe")
            length = int.from_bytes(file.read(8), "little")
            self.header = load_checked(file.read(length), tasks)
            index = file.read(self.header["count"] * ENTRY)
            entry = index[position * ENTRY : position * ENTRY + ENTRY]
            file.seek(int.from_bytes(entry[:8], "little"), os.SEEK_CUR)
            payload = file.read(int.from_bytes(entry[8:16], "little"))
        same = blake2b(index).digest() == self.header["index"]
        if not same or blake2b(payload, digest_size=16).digest() != entry[16:]:
            raise Refused(f"{tasks}: changed since it was submitted")
        self.node, self.key, self.folder, self.call, self.needs, self.arguments = loads(payload)
        self.job, self.attempt, self.started = job, int(attempt or 0), time.time()
        batch = os.path.basename(tasks).removesuffix(".tasks")
        self.claim = f"results/{self.node}/{self.key}.claim"
        self.good = f"results/{self.node}/{self.key}.pkl"
        self.bad = f"results/{self.node}/{self.key}.{batch}.err"

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
    is there. Listing the folder makes an NFS client look again.
    """
    until = time.monotonic() + settle
    for path, batch in needs:
        while not os.path.exists(path + ".pkl"):
            if os.path.exists(f"{path}.{batch}.err") or time.monotonic() > until:
                return path
            os.listdir(os.path.dirname(path))
            time.sleep(0.5)
    return None


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


def run_child(element: Element) -> None:
    """Load and call the task, and write its outcome. Ends the process."""
    signal(SIGTERM, SIG_DFL)
    header = element.header
    status = 1
    try:
        known = set(sys.path)
        sys.path += [folder for folder in header["path"] if folder not in known]
        function, fixed = loads(header["calls"][element.call])
        arguments = {**fixed, **loads(element.arguments)}
        os.chdir(header["cwd"])
        if element.folder:
            os.makedirs(element.folder, exist_ok=True)
            os.chdir(element.folder)
        try:
            value = function(**arguments)
        except SystemExit as leaving:
            if leaving.code:
                raise
            value = None
        value = absolute(value, element.folder or header["cwd"])
        pickled = dump_any(value)
        finish()  # what an exit handler still writes belongs to a good task
        os.chdir(header["run"])
        write_outcome(element.claim, element.good, element.record(ok=True, **usage()), pickled)
        status = 0
    except BaseException as error:
        record_error(element, error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def absolute(value: Any, folder: str) -> Any:
    """Anchor relative paths in what a task returns to the folder it ran in."""
    if "pathlib" in sys.modules:
        from pathlib import Path

        if isinstance(value, Path):
            return Path(folder, value)
        if type(value) in (list, tuple):
            return type(value)(absolute(item, folder) for item in value)
        if type(value) is dict:
            return {name: absolute(item, folder) for name, item in value.items()}
    return value


def usage() -> dict[str, Any]:
    """Say what this process and its children used: CPU in seconds, memory in KiB."""
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

    both = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    scale = 1024 if sys.platform == "darwin" else 1  # macOS counts in bytes
    return {
        "cpu": sum(one.ru_utime + one.ru_stime for one in both),
        "max_memory": max(one.ru_maxrss for one in both) // scale,
    }


def record_error(element: Element, error: BaseException) -> None:
    """Write down what a task raised, with its traceback less our own frames."""
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    trace = "".join(traceback.format_exception(type(error), error, frames))
    sys.stdout.flush()
    sys.stderr.write(trace)
    code = getattr(error, "exit_code", None)
    lines = traceback.format_exception_only(type(error), error)
    last = next(line for line in lines if not line.startswith(" ")).strip()  # the rest is context
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        last = f"exit {code}" if error.code == code else str(error.code)
    try:
        pickled = dump_any(error)
    except Exception:  # an exception that cannot be pickled has still been told in words
        pickled = dumps(None)
    os.chdir(element.header["run"])
    facts = element.record(ok=False, error=last, trace=trace, exit=code, **usage())
    write_outcome(element.claim, element.bad, facts, pickled)


def finish() -> None:
    """Do what the interpreter would do at its end: join threads, run the exit handlers."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()


def run(element: Element) -> int:
    """Run one claimed task in a child process, and record an end the child could not."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        run_child(element)
    terminated = []

    def terminate(*_: object) -> None:
        terminated.append(True)
        try:  # noqa: SIM105  contextlib is an import that every element would pay for
            os.kill(child, SIGTERM)
        except ProcessLookupError:
            pass

    signal(SIGTERM, terminate)
    _, status, used = os.wait4(child, 0)
    if not os.path.exists(element.claim):
        return int(not os.path.exists(element.good))
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        words = "terminated" if terminated else f"killed by signal {-code}"
    else:
        words = f"the process ended with exit {code} before the task returned"
    scale = 1024 if sys.platform == "darwin" else 1
    facts = element.record(
        ok=False,
        error=words,
        exit=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        terminated=bool(terminated),
        cpu=used.ru_utime + used.ru_stime,
        max_memory=used.ru_maxrss // scale,
    )
    write_outcome(element.claim, element.bad, facts, dumps(None))
    return 1


def main() -> None:
    """Run the element named on the command line: task file, position, job id, restart count.

    The working folder is the run's own. Leaves with 0, 1 for a task that failed, or one of the
    reserved codes.
    """
    try:
        element = Element(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
    except Refused as error:
        sys.stderr.write(f"hpcpipe: {error}\n")
        os._exit(1)
    header = element.header
    if header["python"] != sys.implementation.cache_tag:
        sys.stderr.write(
            f"hpcpipe: submitted with {header['python']} ({header['executable']}), but "
            f"{os.uname().nodename} starts {sys.implementation.cache_tag} ({sys.executable})\n"
        )
        os._exit(NO_ENVIRONMENT)
    if os.path.exists(element.good):
        os._exit(0)
    absent = missing_upstream(element.needs, header["settle"])
    if absent is not None:
        sys.stderr.write(f"hpcpipe: upstream failed: no good outcome at {absent}\n")
        os._exit(UPSTREAM_FAILED)
    holder = take_claim(element)
    if holder is not None:
        sys.stderr.write(f"hpcpipe: {element.node} {element.key} is claimed by {holder}\n")
        os._exit(CLAIMED)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os._exit(run(element))
