"""Direct distribution: a `concurrent.futures.Executor` whose calls are tasks on the cluster.

Calls go the way of every workflow: those made within a short moment are planned together, as one
array a function, and handed to the scheduler; their outcomes are files in the run's folder. A
thread looks there for the futures' sake, as ``hpcpipe watch`` does. The tasks do not depend on it:
the program may end, and another one takes the run up with `Executor.attach`.
"""

from __future__ import annotations

import concurrent.futures.thread  # ipyparallel's import needs it, too late as a program ends
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hpcpipe.asking import LOOK, next_look
from hpcpipe.calls import Call, Calls
from hpcpipe.errors import (
    HpcpipeError,
    LockHeld,
    SchedulerUnavailable,
    WorkflowError,
)
from hpcpipe.handover import cannot_travel, first_group, nodes_so_far, submit_calls
from hpcpipe.node import check_name, read_resources
from hpcpipe.run import Run, pick_site, remember
from hpcpipe.rundir import RunDir
from hpcpipe.settling import add_open, fail_all, is_dropped, settle, settle_all

if TYPE_CHECKING:
    from hpcpipe.site import Site
    from hpcpipe.site.load import Loaded

T = TypeVar("T")
_LONGEST = 20  # times the gathering moment, after which calls go though more keep coming
_AGAIN = 10.0  # seconds before calls are handed over again that could not be
_TRIES = 6  # of doing so


class Executor(concurrent.futures.Executor):
    """Runs calls on a site's scheduler: ``submit``, ``map``, and futures, as Python's own.

    The run lies in ``<base_dir>/<name>``. Under a name that was used before, calls that were made
    before are found done or under way; without one, the run is new. Calls made within ``gather``
    seconds of each other become one array a function; `flush` does not wait. ``site`` is a site's
    name or file; what else is said are resources, as of `task`, for functions that do not say.
    Raises ConfigError for a site that cannot be read, WorkflowError for a bad name or resource.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        base_dir: str | os.PathLike[str] = "hpcpipe_runs",
        site: str | Site | Loaded | None = None,
        gather: float = 0.5,
        **resources: Any,
    ) -> None:
        fresh = f"executor-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        folder = Path(os.path.abspath(base_dir), check_name(name or fresh, "executor"))
        self._rundir = RunDir(folder)
        if self._rundir.exists:
            nodes_so_far(self._rundir)
        self._site, self._site_file = pick_site(site)
        self._made = Calls(read_resources(resources, "Executor"))
        self._gather = gather
        self._lock = threading.RLock()  # over what follows
        self._new: list[Call] = []
        self._open: dict[str, Future[Any]] = {}  # by the task's name
        self._began = self._latest = 0.0  # when the first and the last of the new calls was made
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
        """Take up the run of an executor, of this program or any other: see `futures`.

        ``site`` and what else is said matter to further calls; the site is the run's if not said.
        Raises UsageError where there is no such run.
        """
        run = run if isinstance(run, Run) else Run(run)
        folder = Path(os.path.abspath(run.rundir.folder))
        record = run.record
        return cls(folder.name, base_dir=folder.parent, site=site or record.site, **options)

    @property
    def run(self) -> Run:
        """The run, once something was submitted."""
        return Run(self._rundir.folder)

    def futures(self) -> dict[str, Future[Any]]:
        """Give a future for every task of the run, by name, whichever client made the call."""
        self.flush()
        with self._lock:
            found = {
                name: self._open.setdefault(name, Future()) for name in self.run.record.names()
            }
            self._start()
        return found

    def push(self, **constants: Any) -> None:
        """Give constants to every later call of a function that has a parameter of this name.

        Each is written into the run's folder once. What a call itself gives goes before.
        Raises WorkflowError for a value that cannot be sent to a node.
        """
        self._made.push(self._rundir, constants)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function, or an interface of nipype, and give a future for its result.

        Raises WorkflowError for what cannot be sent there, RuntimeError after `shutdown`.
        """
        return self._submit(fn, args, kwargs).future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call a function with the items of iterables, as one array; give results in their order.

        An element of the array makes ``chunksize`` calls, one after the other. A call that fails
        raises when its turn comes, and stops no other. Raises what submitting raises; TimeoutError
        where a result is not there ``timeout`` seconds after this was called.
        """
        pack = chunksize if chunksize > 1 else None
        calls = [self._submit(fn, args, {}, pack) for args in zip(*iterables, strict=False)]
        until = None if timeout is None else time.monotonic() + timeout
        self.flush()

        def results() -> Iterator[T]:
            for call in calls:
                left = None if until is None else max(0.0, until - time.monotonic())
                yield call.future.result(left)

        return results()

    def flush(self) -> None:
        """Hand over the calls made so far without waiting for more.

        Raises what submitting a workflow raises; the futures of those calls have it, too. While the
        scheduler cannot be asked, or another client holds the run, the calls are tried again later.
        """
        with self._sending:
            while self._new:
                with self._lock:
                    group, self._new = first_group(self._new)
                if not self._send(group):
                    return

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; hand over those that were made, and wait until all have ended.

        With ``cancel_futures`` those that have not ended are cancelled. Without ``wait`` the tasks
        go on whether or not this program does.
        """
        with self._lock:
            self._ended = True
            waiting = [*(call.future for call in self._new), *self._open.values()]
        if cancel_futures:
            for future in waiting:
                future.cancel()
        with suppress(HpcpipeError):  # the futures have it
            self.flush()
        self._wake.set()
        thread = self._thread
        if wait and thread is not None:
            thread.join()

    # --- handing over -----------------------------------------------------------------------------

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
            call = self._made.make(function, args, kwargs, pack)
            self._latest = time.monotonic()
            self._began = self._began if self._new else self._latest
            self._new.append(call)
            self._start()
        return call

    def _send(self, group: list[Call]) -> bool:
        """Hand over one group; give False where that must be tried again later."""
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
            # One call that cannot travel must not hold up the others.
            bad = {call: why for call in group if (why := cannot_travel(call, self._made.own))}
            if not bad:
                fail_all(group, error)
                raise
            for call, why in bad.items():
                fail_all([call], why)
            self._send([call for call in group if call not in bad])
            raise next(iter(bad.values())) from error
        except Exception as error:  # whoever waits must not wait for ever
            fail_all(group, error)
            raise
        self._tries = 0
        remember(self._rundir.folder)
        with self._lock:
            for call in group:
                add_open(self._open, call.name, call.future)
            self._start()  # it may have found nothing to do while these were on their way
        self._wake.set()
        return True

    # --- looking ----------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            # No daemon, nor left to `atexit`: an adapter (ipyparallel) starts threads of its own.
            self._thread = threading.Thread(target=self._follow, name="hpcpipe")
            self._thread.start()

    def _follow(self) -> None:
        """Hand over what was gathered, settle futures, until there are none or the program ends."""
        pause = 0.0
        while self._wait(min(pause, self._gather) if self._new else pause):
            self._wake.clear()
            now = time.monotonic()
            due = now - self._latest >= self._gather or now - self._began >= _LONGEST * self._gather
            if self._new and due:
                with suppress(Exception):  # the futures have it
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
            print(f"hpcpipe: {error}", file=sys.stderr)

    def _wait(self, seconds: float) -> bool:
        """Wait for so long or until woken; give False once the main thread has ended."""
        until = time.monotonic() + seconds
        while threading.main_thread().is_alive():
            left = until - time.monotonic()
            if self._wake.wait(max(0.0, min(left, LOOK))) or left <= LOOK:
                return True
        return False

    def _settle(self) -> None:
        """Give every future its outcome whose task has one."""
        with self._lock:
            open_ = dict(self._open)
        if not open_:
            return
        try:
            for name in settle_all(self.run, open_):
                with self._lock:
                    del self._open[name]
        except Exception as error:  # whoever waits must not wait for ever
            for future in open_.values():
                settle(future, error=error)
            with self._lock:
                self._open = {n: one for n, one in self._open.items() if n not in open_}
