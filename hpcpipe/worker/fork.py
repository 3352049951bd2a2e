"""Runs tasks, each in a child process, and records how one ended whatever happens to the child.

Imports next to nothing, for the same reason as `hpcpipe.worker.task`.
"""

from __future__ import annotations

import fcntl
import os
import sys
from _pickle import dumps, loads
from _signal import (  # type: ignore[import-not-found]
    SIG_BLOCK,
    SIG_DFL,
    SIG_UNBLOCK,
    SIGALRM,
    SIGINT,
    SIGKILL,
    SIGQUIT,
    SIGTERM,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
)

from hpcpipe.worker import cgroup, outcome
from hpcpipe.worker.claim import join_claim
from hpcpipe.worker.outcome import dump_any, paths_in, scan_pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hpcpipe.worker.task import Element

terminated: list[bool] = []  # by the scheduler
children: set[int] = set()  # that run
leash: list[int] = []  # the ends of a pipe, see `tie`
waking: list[int] = []  # processes that call for a continuation
ending = [SIGTERM, SIGALRM]  # Flux sends the latter to all of a job at its time limit
_HERE = os.path.dirname(__file__)
_OURS = (
    __file__,
    os.path.join(_HERE, "unpickle.py"),
    os.path.join(os.path.dirname(_HERE), "graph", "returned.py"),
)


def guard(header: dict[str, Any]) -> None:
    """Pass the scheduler's signals to the children, and let none outlive this process."""
    for number in ending:
        signal(number, terminate)
    if "checkpoint" in header:
        from hpcpipe.worker.checkpoint import expect

        expect(*header["checkpoint"])
    if os.getpgrp() == os.getpid() and hasattr(fcntl, "F_SETSIG"):
        tie()


def tie() -> None:
    """Have the kernel kill this process group, which is all of the job, if this process is killed.

    Else its children would go on: nobody would record how they end, and until then nobody else may
    run their tasks. What a child has started must die with it, or it would run beside a second
    start. Linux signals the owner of a pipe's end when the last holder of the other end is gone.
    """
    leash[:] = os.pipe()
    fcntl.fcntl(leash[0], fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(leash[0], fcntl.F_SETSIG, SIGKILL)
    fcntl.fcntl(leash[0], fcntl.F_SETFL, os.O_ASYNC)


def untie() -> None:
    """Let this process end by itself, whatever its children have left running."""
    if leash:
        fcntl.fcntl(leash[0], fcntl.F_SETFL, 0)


def terminate(*_: object) -> None:
    """Terminate all children."""
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
    pthread_sigmask(SIG_BLOCK, ending)  # or a child just made might not hear of it
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        run_child(element, worker)
    children.add(child)
    pthread_sigmask(SIG_UNBLOCK, ending)
    return child


def wait(child: int = -1) -> tuple[int, int, Any]:
    """Wait for the end of a child, or of any; return its id, its status and what it used."""
    child, status, used = os.wait4(child, 0)
    children.discard(child)
    return child, status, used


def settle(element: Element, status: int, used: Any) -> int:
    """Record a task's end if its child could not, and release it; return 1 unless it succeeded."""
    code = os.waitstatus_to_exitcode(status)
    if not recorded(element):
        record_end(element, code, used)  # raises where there is no space for it
        code = code or 1  # it has failed, whatever it ended with
    element.release()
    if code and element.header["wakes"]:
        wake()
    return int(code != 0)


def wake() -> None:
    """Call for what retries a task, rather than leave that to what waits for all of them."""
    note_due()
    if not os.path.exists("waking"):
        call_for()


def note_due() -> None:
    """Note that a retry may be due, for whichever task begins next."""
    with open("due", "w"):
        pass


def call_for(*words: str) -> None:
    """Start `hpcpipe.continuing`."""
    log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [(os.POSIX_SPAWN_OPEN, 1, "logs/waking.out", log, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    code = "from hpcpipe.continuing import main; main()"
    argv = [sys.executable, "-P", "-c", code, *words]
    waking.append(os.posix_spawn(sys.executable, argv, os.environ, file_actions=files))


def record_end(element: Element, code: int, used: Any) -> None:
    """Record how the process of a task ended that left no outcome."""
    if code < 0:
        words = "terminated" if terminated else f"killed by signal {-code}"
    elif code == 0 and terminated:
        words = LeftWhenTold.hpcpipe_words
    elif code == outcome.NO_SPACE:
        words = "No space left on device: its outcome could not be written"
    else:
        words = f"the process ended with exit {code} before the task returned"
    ended = bool(terminated)
    if saved := has_saved(element, code):
        words = "it has saved its state"
    elif "checkpoint" in element.header:
        from hpcpipe.worker.checkpoint import ended_by

        if ended_by(code):
            ended, words = True, f"it does not handle the signal of its checkpoint, {-code}"
    scale = 1024 if sys.platform == "darwin" else 1
    kills = cgroup.count_kills() - element.kills
    facts = element.record(
        ok=False,
        error=cgroup.words(kills) if kills else words,
        cause="memory" if kills else "checkpoint" if saved else None,
        exit=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        terminated=ended,
        cpu=used.ru_utime + used.ru_stime,
        max_memory=used.ru_maxrss // scale,
    )
    element.keep(False, facts, dumps(None))


def has_saved(element: Element, code: object) -> bool:
    """Return whether a task left with the exit code that says that it has saved its state."""
    return code == outcome.CHECKPOINTED and "checkpoint" in element.header


def recorded(element: Element) -> bool:
    """Return whether an outcome of a task was recorded since it began."""
    if element.pack is None:
        return not os.path.exists(element.claim)
    if element.partial and os.path.exists(element.partial):
        return True
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
        if header["path"] and (own := header["path"][0]) not in known:  # that of the user's file
            from hpcpipe.worker.own_modules import read_below

            read_below(own)
        calls[number] = loads(calls[number])
    return calls[number]


def run_child(element: Element, worker: int) -> None:
    """Load and call the task, and write its outcome. Ends the process."""
    for end in leash[1:]:
        os.close(end)
    for number in ending:
        signal(number, SIG_DFL)
    signal(SIGINT, default_int_handler)  # sh has what it starts in the background ignore both
    signal(SIGQUIT, SIG_DFL)
    pthread_sigmask(SIG_UNBLOCK, ending)
    header = element.header
    status = 1
    try:
        element.home = os.open(".", os.O_RDONLY)
        join_claim(element.claim, worker)
        if element.log:
            part(element)
        if element.inputs:
            from hpcpipe.worker.inputs import BEFORE, check

            check(element.inputs, BEFORE)
        function, fixed = load_call(header, element.call)
        outcome.home, outcome.above, outcome.packed = header["run"], element.above, element.packed
        outcome.loose = header.get("loose", {}).get(element.node, ())
        arguments = {**fixed, **loads(element.arguments())}
        os.chdir(header["cwd"])
        if element.folder:
            enter_folder(element)
        value = absolute(call(function, arguments), element.folder)
        measures = measured(value, header, element.node)
        pickled = dump_any(value)
        finish()  # what an exit handler still writes belongs to a task that succeeded
        made = {**check_made(value), **measures}
        os.fchdir(element.home)
        check_end(element)
        element.keep(True, element.record(ok=True, **made, **usage()), pickled)
        status = 0
    except BaseException as error:
        status = fail(element, error)
    say()
    os._exit(status)


def fail(element: Element, error: BaseException) -> int:
    """Record what a task raised; return the exit code of its process."""
    left = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", None)
    if has_saved(element, left):
        return outcome.CHECKPOINTED  # the worker records it: it knows which signal came
    try:
        record_error(element, error)
    except OSError as full:  # the worker tries again, and says it by its exit code
        return outcome.NO_SPACE if full.errno in outcome.FULL else 1
    return 1


def enter_folder(element: Element) -> None:
    """Make the working folder of a task its own, and go there."""
    home = element.header["run"]
    outcome.take_folder(home, element.folder, element.node, element.key, element.pack)
    if "partial" in element.header:
        outcome.forget_partial(element.node, element.key, element.batch)
    os.chdir(element.folder)


def say(text: str = "") -> None:
    """Write to the log, and flush what others wrote; it may be on a full disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.write(text if stream is sys.stderr else "")
            stream.flush()
        except OSError:
            pass


def part(element: Element) -> None:
    """Set up a log and GPUs of its own for a task that runs beside others."""
    log = os.open(element.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if cap := os.environ.get("HPCPIPE_KEEP_SHORT"):  # see templates/capped.sh.j2
        words = ["sh", "-c", cap, "sh", element.log, str(os.getppid())]
        os.waitpid(os.posix_spawn("/bin/sh", words, os.environ), 0)
    if gpus := element.header["gpus"]:
        first, last = element.lane * gpus, (element.lane + 1) * gpus
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = given.split(",") if given else [str(number) for number in range(last)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[first:last])


def absolute(value: Any, folder: str) -> Any:
    """Anchor relative paths in what a task returns to its own folder.

    Raises ValueError if it has none: all tasks would name the same file.
    """
    if "pathlib" not in sys.modules:
        return value
    from pathlib import Path

    if isinstance(value, Path):
        if not folder and not value.is_absolute():
            raise ValueError(
                f"returned {str(value)!r}, relative, without a folder of its own: "
                "annotate it to return Path, or return an absolute path"
            )
        return Path(folder, value)
    kind: Any = type(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [absolute(item, folder) for item in value]
        if any(one is not other for one, other in zip(items, value, strict=True)):
            return kind._make(items) if hasattr(kind, "_make") else kind(items)
    elif isinstance(value, dict):
        for name, item in value.items():
            value[name] = absolute(item, folder)
    else:
        for name in getattr(kind, "__dataclass_fields__", ()):
            if (item := getattr(value, name, None)) is not (made := absolute(item, folder)):
                object.__setattr__(value, name, made)
    return value


class NotMade(Exception):
    """A task returned the path of a file that is not there."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class LeftWhenTold(SystemExit):
    """A task was told to end, and left with 0."""

    hpcpipe_words = "terminated: it ended with 0, and its result is not there"
    hpcpipe_terminated = True  # why, the accounting may know


def call(function: Any, arguments: dict[str, Any]) -> Any:
    """Call a task's function; to leave with 0 is to return nothing, unless told to end."""
    try:
        return function(**arguments)
    except SystemExit as leaving:
        if leaving.code:
            raise
        if left_by_handler(leaving):
            raise LeftWhenTold(0) from None
        return None


def left_by_handler(error: BaseException) -> bool:
    """Return whether the function's own handler of a signal that ends tasks raised an error."""
    handlers = [getsignal(number) for number in ending]
    codes = {getattr(getattr(one, "__func__", one), "__code__", None) for one in handlers}
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code not in codes:
        frames = frames.tb_next
    return frames is not None


def check_made(value: Any) -> dict[str, Any]:
    """Return the paths that a task returned, for its outcome, and what these files are like.

    Raises NotMade if one is not there.
    """
    paths = [*paths_in(value)]
    for path in paths:
        if not os.path.exists(path):
            raise NotMade(f"it returned {path}, which does not exist")
    if not paths:
        return {}
    from hpcpipe.worker.made import note

    return {"paths": paths, "files": note(paths)}


def measured(value: Any, header: dict[str, Any], node: str) -> dict[str, Any]:
    """Return the lengths of lists that a task returned, for its outcome, if others need them."""
    if node not in header.get("mapped", ()):
        return {}
    from hpcpipe.worker.width import measure

    return {"widths": measure(value, header["mapped"][node])}


def check_end(element: Element) -> None:
    """Raise where a task that returned has failed: its inputs changed, or a child was killed."""
    if element.inputs:
        from hpcpipe.worker.inputs import AFTER, check

        check(element.inputs, AFTER)
    if kills := cgroup.count_kills() - element.kills:
        raise cgroup.OutOfMemory(kills)


def usage() -> dict[str, Any]:
    """Return what this process and its children used: CPU in seconds, memory in KiB."""
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
    code = getattr(error, "exit_code", None)
    lines = traceback.format_exception_only(type(error), error)
    last = next(line for line in lines if not line.startswith(" ")).strip()  # the rest is context
    kind, begins_below, message = last.partition(": \n")
    last = f"{kind}: {message.lstrip()}" if begins_below else last
    if isinstance(getattr(error, "words", None), str):  # of a command, or of a program it drove
        last = error.words  # type: ignore[attr-defined]
        if type(error).__module__.startswith("hpcpipe."):
            trace = f"{last}\n"  # the frames are ours, and not where it went wrong
    say(trace)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        last = f"exit {code}" if error.code == code else str(error.code)
    last = getattr(error, "hpcpipe_words", last)
    try:
        pickled = dump_any(error)
    except Exception:  # an exception that cannot be pickled has still been recorded in words
        pickled = dumps(None)
    os.fchdir(element.home)
    cause = getattr(error, "hpcpipe_cause", None)
    ended = {"terminated": True} if hasattr(error, "hpcpipe_terminated") else {}
    facts = element.record(
        ok=False, error=last, trace=trace, exit=code, cause=cause, **ended, **usage()
    )
    element.keep(False, facts, pickled)


def finish() -> None:
    """Finish as the interpreter would: join threads, run the exit handlers."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
