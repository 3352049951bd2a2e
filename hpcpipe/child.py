"""Runs tasks, each in a child process, and records how one ended whatever happens to the child.

Imports next to nothing, for the same reason as `hpcpipe.worker`.
"""

from __future__ import annotations

import os
import sys
from _pickle import dumps, loads
from _signal import (  # type: ignore[import-not-found]
    SIG_BLOCK,
    SIG_DFL,
    SIG_UNBLOCK,
    SIGTERM,
    pthread_sigmask,
    signal,
)

from hpcpipe.outcome import dump_any, scan_pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.worker import Element

terminated: list[bool] = []  # by the scheduler
children: set[int] = set()  # that run
_OURS = (__file__, os.path.join(os.path.dirname(__file__), "byvalue.py"))


def heed() -> None:
    """Pass on to the children what the scheduler says: that they are to end."""
    signal(SIGTERM, terminate)


def terminate(*_: object) -> None:
    """Tell all children to end."""
    terminated.append(True)
    for child in children:
        try:  # noqa: SIM105  contextlib is an import that every element would pay for
            os.kill(child, SIGTERM)
        except ProcessLookupError:
            pass


def start(element: Element) -> int:
    """Start a claimed task in a child process; return the process's id."""
    sys.stdout.flush()
    element.begin()
    pthread_sigmask(SIG_BLOCK, (SIGTERM,))  # or a child just made might not hear of it
    child = os.fork()
    if child == 0:
        run_child(element)
    children.add(child)
    pthread_sigmask(SIG_UNBLOCK, (SIGTERM,))
    return child


def wait(child: int = -1) -> tuple[int, int, Any]:
    """Wait for the end of a child, or of any; return its id, its status and what it used."""
    child, status, used = os.wait4(child, 0)
    children.discard(child)
    return child, status, used


def settle(element: Element, status: int, used: Any) -> int:
    """Record a task's end if its child could not; return 1 unless it is good."""
    code = os.waitstatus_to_exitcode(status)
    if recorded(element):
        return int(code != 0)
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
    element.keep(False, facts, dumps(None))
    return 1


def recorded(element: Element) -> bool:
    """Tell whether an outcome of a task was recorded since it began."""
    if element.pack is None:
        return not os.path.exists(element.claim)
    try:
        return element.key in [key for key, *_ in scan_pack(element.pack, element.size)]
    except FileNotFoundError:
        return False


def load_call(header: dict[str, Any], number: int) -> Any:
    """Load a function and its fixed inputs, where the submitter's modules can be imported."""
    calls = header["calls"]
    if type(calls[number]) is bytes:
        known = set(sys.path)
        sys.path += [folder for folder in header["path"] if folder not in known]
        calls[number] = loads(calls[number])
    return calls[number]


def run_child(element: Element) -> None:
    """Load and call the task, and write its outcome. Ends the process."""
    signal(SIGTERM, SIG_DFL)
    pthread_sigmask(SIG_UNBLOCK, (SIGTERM,))
    header = element.header
    status = 1
    try:
        if element.log:
            part(element)
        function, fixed = load_call(header, element.call)
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
        element.keep(True, element.record(ok=True, **usage()), pickled)
        status = 0
    except BaseException as error:
        record_error(element, error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def part(element: Element) -> None:
    """Give a task that runs beside others a log and GPUs of its own."""
    log = os.open(element.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if gpus := element.header["gpus"]:
        first, last = element.lane * gpus, (element.lane + 1) * gpus
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = given.split(",") if given else [str(number) for number in range(last)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[first:last])


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
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    trace = "".join(traceback.format_exception(type(error), error, frames))
    sys.stdout.flush()
    sys.stderr.write(trace)
    code = getattr(error, "exit_code", None)
    lines = traceback.format_exception_only(type(error), error)
    last = next(line for line in lines if not line.startswith(" ")).strip()  # the rest is context
    if isinstance(getattr(error, "words", None), str):  # of a command, or of a program it drove
        last = error.words  # type: ignore[attr-defined]
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        last = f"exit {code}" if error.code == code else str(error.code)
    last = getattr(error, "hpcpipe_words", last)
    try:
        pickled = dump_any(error)
    except Exception:  # an exception that cannot be pickled has still been told in words
        pickled = dumps(None)
    os.chdir(element.header["run"])
    facts = element.record(ok=False, error=last, trace=trace, exit=code, **usage())
    element.keep(False, facts, pickled)


def finish() -> None:
    """Do what the interpreter would do at its end: join threads, run the exit handlers."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
