"""Runs one task in a child process, and records how it ended whatever happens to the child.

Imports next to nothing, for the same reason as `hpcpipe.worker`.
"""

from __future__ import annotations

import os
import sys
from _pickle import dumps, loads
from _signal import SIG_DFL, SIGTERM, signal  # type: ignore[import-not-found]

from hpcpipe.outcome import dump_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.worker import Element

terminated: list[bool] = []  # by the scheduler
_OURS = (__file__, os.path.join(os.path.dirname(__file__), "byvalue.py"))


def run(element: Element) -> int:
    """Run one claimed task in a child process, and record an end the child could not."""
    sys.stdout.flush()
    before = recorded(element)
    child = os.fork()
    if child == 0:
        run_child(element)

    def terminate(*_: object) -> None:
        terminated.append(True)
        try:  # noqa: SIM105  contextlib is an import that every element would pay for
            os.kill(child, SIGTERM)
        except ProcessLookupError:
            pass

    signal(SIGTERM, terminate)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if recorded(element) != before:
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


def recorded(element: Element) -> int:
    """Give a number that changes when an outcome is recorded: the claim's, or the pack's size."""
    if element.pack is None:
        return os.path.exists(element.claim)
    return os.stat(element.pack).st_size if os.path.exists(element.pack) else 0


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
    header = element.header
    status = 1
    try:
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
