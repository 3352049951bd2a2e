"""A `concurrent.futures.Executor` whose calls are tasks on the cluster.

Calls are submitted like any workflow: those made within a short time are planned together, as one
array per function; their outcomes are files in the run's folder. A thread watches that folder to
resolve the futures, as ``hpcpipe watch`` does. The tasks do not depend on it: the program may end,
and another one can continue the run with `Executor.attach`.
"""

from __future__ import annotations

import concurrent.futures.thread  # ipyparallel needs it, and cannot import it at exit
import operator
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hpcpipe.errors import (
    HpcpipeError,
    LockHeld,
    SchedulerUnavailable,
    WorkflowError,
)
from hpcpipe.executor.calls import Call, Calls
from hpcpipe.executor.futures import (
    TaskFuture,
    add_open,
    fail_all,
    is_dropped,
    settle,
    settle_all,
)
from hpcpipe.executor.submit import cannot_travel, first_group, nodes_so_far, submit_calls
from hpcpipe.graph.node import check_name, read_resources
from hpcpipe.run import Run, pick_site
from hpcpipe.status.poll import LOOK, next_look
from hpcpipe.store.recent import remember
from hpcpipe.store.rundir import RunDir
from hpcpipe.views.text import show

if TYPE_CHECKING:
    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded

T = TypeVar("T")
_LONGEST = 20  # times ``gather``, after which calls are submitted even if more keep coming
_AGAIN = 10.0  # seconds until a failed submission is repeated
_TRIES = 6  # attempts to submit: a minute in all
_WIDTH = 100  # calls in flight that a client is advised to keep, where no limit of cores is known


class _Follower(threading.Thread):
    """The thread of an executor that resolves its futures."""


def _may_wait() -> bool:
    """Return whether a thread of the program still runs: the main one, or another that is waited
    for when Python exits."""
    main = threading.main_thread()
    return main.is_alive() or any(
        not (thread is main or thread.daemon or isinstance(thread, _Follower))
        for thread in threading.enumerate()
    )


class Executor(concurrent.futures.Executor):
    """An executor on a site's scheduler, with ``submit``, ``map`` and futures like Python's own.

    The run is in ``<base_dir>/<name>``. If the name was used before, calls that were made before
    are found done or in flight; without a name, the run is new. Calls made within ``gather``
    seconds of each other become one array per function; `flush` does not wait. ``site`` is a site's
    name or file. ``width`` is how many calls to keep in flight, for clients that ask an executor
    for its number of workers (adaptive, dask); by default the site's ``limits.cores``. Further
    arguments are resources, as for `task`, and are defaults for all functions. Raises ConfigError
    for a site that cannot be read, and WorkflowError for an invalid name or resource.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        base_dir: str | os.PathLike[str] = "hpcpipe_runs",
        site: str | Site | Loaded | None = None,
        gather: float = 0.5,
        width: int | None = None,
        **resources: Any,
    ) -> None:
        if width is not None and width < 1:
            raise ValueError(f"width={width}: max_workers must be greater than 0")
        fresh = f"executor-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        folder = Path(os.path.abspath(base_dir), check_name(name or fresh, "executor"))
        self._rundir = RunDir(folder)
        if self._rundir.exists:
            nodes_so_far(self._rundir)
        self._site, self._site_file = pick_site(site)
        self._made = Calls(read_resources(resources, "Executor"))
        self._max_workers = width or self._site.limits.cores or _WIDTH  # as pools call it
        self._gather = gather
        self._lock = threading.RLock()  # guards the attributes below
        self._new: list[Call] = []
        self._open: dict[str, TaskFuture[Any]] = {}  # by task name
        self._began = self._latest = 0.0  # times of the first and the last new call
        self._tries = 0
        self._ended = False
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def attach(
        cls,
        run: str | os.PathLike[str] | Run,
        *,
        site: str | Site | Loaded | None = None,
        **options: Any,
    ) -> Self:
        """Continue the run of an executor of this program or any other: see `futures`.

        ``site`` (default: that of the run) and further arguments apply to further calls. Raises
        UsageError if there is no such run.
        """
        run = run if isinstance(run, Run) else Run(run)
        folder = Path(os.path.abspath(run.rundir.folder))
        record = run.record
        return cls(folder.name, base_dir=folder.parent, site=site or record.site, **options)

    @property
    def run(self) -> Run:
        """The run, once something has been submitted."""
        return Run(self._rundir.folder)

    def futures(self) -> dict[str, TaskFuture[Any]]:
        """Return a future for every task of the run, by name, whichever client made the call."""
        self.flush()
        with self._lock:
            found = {
                name: self._open.setdefault(name, TaskFuture()) for name in self.run.record.names()
            }
            self._start()
        return found

    def push(self, **constants: Any) -> None:
        """Pass constants to every later call of a function with a parameter of the same name.

        Each is written into the run's folder once. A call's own arguments take precedence. Raises
        WorkflowError for a value that cannot be sent to a node.
        """
        self._made.push(self._rundir, constants)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function or a nipype interface, and return a future for its result.

        Raises WorkflowError if it cannot be sent to a node, and RuntimeError after `shutdown` and
        while Python exits.
        """
        return self._submit(fn, args, kwargs).future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call a function with the items of iterables, as one array; yield results in order.

        An element of the array makes ``chunksize`` calls, one after another. A failed call raises
        when its result is reached, and does not stop others; so does one that could not be
        submitted. Raises ValueError for a ``chunksize`` below 1, and TimeoutError if a result is
        missing ``timeout`` seconds after this was called.
        """
        chunksize = operator.index(chunksize)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        until = None if timeout is None else time.monotonic() + timeout
        pack = chunksize if chunksize > 1 else None
        rows = zip(*iterables, strict=False)
        futures = [self._submit(fn, row, {}, pack).future for row in rows]
        with suppress(HpcpipeError):  # the futures raise it
            self.flush()
        futures.reverse()

        def results() -> Iterator[T]:
            while futures:  # a result that was taken is kept nowhere
                left = None if until is None else max(0.0, until - time.monotonic())
                yield futures.pop().result(left)

        return results()

    def flush(self) -> None:
        """Submit the calls made so far without waiting for more.

        Raises what submitting a workflow raises; the futures of those calls raise it too. While the
        scheduler cannot be reached, or another client holds the run, the calls are retried later.
        """
        with self._sending:
            while self._new:
                with self._lock:
                    group, self._new = first_group(self._new)
                if not self._send(group):
                    return

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; submit those that were made, and wait until all have ended.

        With ``cancel_futures``, cancel those that have not ended. Without ``wait``, the tasks
        continue whether or not this program does.
        """
        with self._lock:
            self._ended = True
            waiting = [*(call.future for call in self._new), *self._open.values()]
        if cancel_futures:
            for future in waiting:
                future.cancel()
        with suppress(HpcpipeError):  # the futures raise it
            self.flush()
        self._wake.set()
        thread = self._thread
        if wait and thread is not None:
            thread.join()

    # --- submitting -------------------------------------------------------------------------------

    def _submit(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        pack: int | None = None,
    ) -> Call:
        with self._lock:
            if self._ended:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if threading.current_thread() is threading.main_thread() and not _may_wait():
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            call = self._made.make(function, args, kwargs, pack)
            self._latest = time.monotonic()
            self._began = self._began if self._new else self._latest
            self._new.append(call)
            self._start()
        return call

    def _send(self, group: list[Call]) -> bool:
        """Submit one group of calls; return False if that must be retried later."""
        group = [call for call in group if not is_dropped(call.future)]
        if not group:
            return True
        try:
            submit_calls(group, self._made, self._rundir, self._site, self._site_file)
        except (LockHeld, SchedulerUnavailable) as error:
            self._tries += 1
            if self._tries == _TRIES:
                fail_all(group, error)
                raise
            with self._lock:
                self._new = [*group, *self._new]
                self._latest = self._began = time.monotonic() + _AGAIN
            return False
        except WorkflowError as error:
            # One call that cannot be pickled must not hold up the others.
            bad = {call: why for call in group if (why := cannot_travel(call, self._made.own))}
            if not bad:
                fail_all(group, error)
                raise
            for call, why in bad.items():
                fail_all([call], why)
            self._send([call for call in group if call not in bad])
            raise next(iter(bad.values())) from error
        except Exception as error:  # whoever waits must not wait forever
            fail_all(group, error)
            raise
        self._tries = 0
        remember(self._rundir.folder)
        with self._lock:
            for call in group:
                add_open(self._open, call.name, call.future)
            self._start()  # the thread may have stopped, idle, while these were being submitted
        self._wake.set()
        return True

    # --- watching ---------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            # Not a daemon, nor joined by `atexit`: an adapter (ipyparallel) starts its own threads.
            self._thread = _Follower(target=self._follow, name="hpcpipe")
            self._thread.start()

    def _follow(self) -> None:
        """Submit gathered calls and resolve futures until none is left or the program ends."""
        pause = 0.0
        while self._wait(min(pause, self._gather) if self._new else pause):
            self._wake.clear()
            now = time.monotonic()
            due = now - self._latest >= self._gather or now - self._began >= _LONGEST * self._gather
            if self._new and due:
                with suppress(Exception):  # the futures raise it
                    self.flush()
            began = time.thread_time()
            self._settle()
            pause = next_look(began)
            with self._lock:
                if not self._new and not self._open:
                    self._thread = None
                    return
        try:
            self.flush()
        except HpcpipeError as error:
            show(f"hpcpipe: {error}", err=True)

    def _wait(self, seconds: float) -> bool:
        """Wait for ``seconds`` or until woken; return False once nobody may wait for a future."""
        until = time.monotonic() + seconds
        while _may_wait():
            left = until - time.monotonic()
            if self._wake.wait(max(0.0, min(left, LOOK))) or left <= LOOK:
                return True
        return False

    def _settle(self) -> None:
        """Resolve the futures of all tasks that have an outcome."""
        with self._lock:
            open_ = dict(self._open)
        if not open_:
            return
        try:
            for name in settle_all(self.run, open_):
                del open_[name]  # its result may be large
                with self._lock:
                    del self._open[name]
        except BaseException as error:  # whoever waits must not wait forever
            for future in open_.values():
                settle(future, error=error)
            with self._lock:
                self._open = {n: one for n, one in self._open.items() if n not in open_}
