"""Local: a batch scheduler for one machine, with no daemon to install.

A script is copied into a spool, and run by a *keeper*: a process in the background, one for each
user and host, that the first ``submit`` starts and that goes by itself when nothing is left to
run. So jobs go on after the terminal is closed, and several runs share the machine without
overloading it. Needs nothing but Python and psutil; Linux and macOS.

Directives, one a line at the head of the script, the rest of the line taken as it is::

    #HPCPIPE --name=WORDS
    #HPCPIPE --array=0-999            or 1,5,7-9; without it, a plain job
    #HPCPIPE --cpus=N                 1 by default
    #HPCPIPE --memory=MIB             no limit by default
    #HPCPIPE --time=SECONDS           no limit by default
    #HPCPIPE --output=logs/x.%a.out   from the run folder; %j is the job's id, %a the index (0 in
                                      a plain job), %% a percent sign; both streams are appended

The script is run by ``/bin/sh`` in the run folder, with the environment and umask of the submitter
and ``HPCPIPE_JOB_ID``, ``HPCPIPE_INDEX`` (not in a plain job) and ``HPCPIPE_CPUS``; by these and
``HPCPIPE_SPOOL`` its processes are known. An element's id is ``12_3``; a plain job's is ``12``.

Site keys: ``[local] cpus`` and ``memory``, the most that all running elements together may ask for
when one of these jobs starts. The spool is a folder on a disk that knows locks, one for this host
in ``$HPCPIPE_LOCAL`` or else in ``$XDG_STATE_HOME/hpcpipe/local``.

Native words: PENDING, HELD, RUNNING; COMPLETED, FAILED, TIMEOUT, OUT_OF_MEMORY, CANCELLED, LOST
(the keeper was killed, or the machine went down, while it ran) and LAUNCH_FAILED (the run folder
is gone, say; ``keeper.log`` in the spool has the reason).

Oddities worth knowing:

* Elements start in order of job and index. One that must wait for room keeps the rest waiting.
  Room is cpus (those this user may use) and memory: what all running ones asked for must be
  within the machine's, and what this one asks for must be free now. When nothing runs the first
  starts in any case, so asking for too much waits for an empty machine, never for ever.
* Memory is looked at once a second and summed over the processes of an element, so that pages they
  share count for each. On Linux no element is seen to use less than the keeper itself, some 20 MiB.
* What a script leaves in the background in its session is killed when it ends.
* Limits of the shell (``ulimit``), niceness and cpu affinity are those of whoever started the
  keeper. Time limits stand still while the machine sleeps.
* Where logind kills a user's processes at logout (``KillUserProcesses=yes``), the keeper needs
  ``loginctl enable-linger``.
* Ended jobs can be asked about for 7 days.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

from hpcpipe.errors import SchedulerUnavailable, SubmitUnclear
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, State
from hpcpipe.schedulers.environment import passed
from hpcpipe.schedulers.local.daemon import rouse
from hpcpipe.schedulers.local.job import Spec, check, read_directives
from hpcpipe.schedulers.local.queue import BLOCKED, DOOMED, READY, STARTED, Job, Queue, read_job
from hpcpipe.schedulers.local.spool import Spool

_ID = re.compile(r"[0-9]+(_[0-9]+)?")
_HELD = JobStatus(State.HELD, "HELD", "Held")
_STATUS = {
    READY: JobStatus(State.QUEUED, "PENDING", "Resources"),
    BLOCKED: JobStatus(State.QUEUED, "PENDING", "Dependency"),
    DOOMED: JobStatus(State.QUEUED, "PENDING", "DependencyNeverSatisfied"),
    STARTED: JobStatus(State.RUNNING, "RUNNING"),
}


@contextmanager
def _explained(kind: type[SchedulerUnavailable] = SchedulerUnavailable) -> Iterator[None]:
    """Raise SchedulerUnavailable for a spool that cannot be used."""
    try:
        yield
    except OSError as error:
        raise kind(
            f"{error.strerror or error}: {error.filename or 'the local spool'}\n"
            "(local jobs are kept in $HPCPIPE_LOCAL, or else below $XDG_STATE_HOME)"
        ) from error


class Local:
    """The verbs, from the client's side of the spool."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities()
    linger: ClassVar[float] = 5.0  # seconds that a keeper stays when nothing runs

    def __init__(
        self,
        spool: Path | str | None = None,
        cpus: int | None = None,
        memory: int | None = None,
        grace: float = 5.0,
    ) -> None:
        self._kept = Spool(Path(spool).absolute() if spool else default_spool())
        self._asked = Spec(most_cpus=cpus, most_memory=memory, grace=grace)

    @property
    def _spool(self) -> Spool:
        """The spool, if no other user has a hand in it; raises PermissionError."""
        self._kept.check()
        return self._kept

    @_explained()
    def instance(self) -> str:
        root = self._spool.root
        there = next((one for one in (root, *root.parents) if os.path.exists(one)), root)
        if not os.path.isdir(there):  # then no job of it can ever have been handed over
            raise SchedulerUnavailable(f"{there}: not a folder, so no jobs can be kept below it")
        return f"local:{os.uname().nodename}:{root}"

    @_explained(SubmitUnclear)
    def submit(
        self, script: Path, after: Sequence[After] = (), *, token: str, held: bool = False
    ) -> str:
        text = script.read_bytes()
        spec = replace(
            read_directives(script, text.decode("utf-8", "surrogateescape"), self._asked),
            after=tuple(after),
            token=token,
            held=held,
            folder=str(script.parent.parent.absolute()),
        )
        check(spec, script, self._spool.spec)
        environment = passed(os.environ, gpus=False)
        rouse(self._spool, self.linger)  # first, so that a refusal leaves no job behind
        named = {os.fsencode(k): os.fsencode(v) for k, v in environment.items()}
        job = self._spool.place(spec, text, named)
        rouse(self._spool, self.linger)
        return job

    def release(self, jobs: Sequence[str]) -> None:
        self._request("release", jobs)

    def cancel(self, jobs: Sequence[str]) -> None:
        self._request("cancel", jobs)

    @_explained()
    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        statuses = {}
        for job, wanted in self._look(jobs):
            for at in wanted:
                if status := _STATUS.get(job.state[at]):
                    held = job.held and job.state[at] != STARTED
                    statuses[job.element(at)] = _HELD if held else status
        return statuses

    @_explained()
    # Ids are never used twice, so that `since` has nothing to tell apart.
    def account(self, jobs: Collection[str], since: float) -> Mapping[str, JobEnd]:  # noqa: ARG002
        ends = {}
        self._look([job for job in jobs if not self._spool.ended(job.partition("_")[0])])
        for name, indices in _by_job(jobs).items():
            plain = (spec := self._spool.spec(name)) is not None and not spec.array
            for event in self._spool.events(name):
                if end := event.end:
                    for index in range(event.first, event.last + 1):
                        if indices is None or index in indices:
                            ends[self.element(name, None if plain else index)] = end
        return ends

    @_explained()
    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for job in reversed(self._spool.ids() if tokens else []):  # most likely the newest
            if len(found) == len(set(tokens)):
                break
            spec = None if self._spool.ended(job) else self._spool.spec(job)
            if spec and spec.token in tokens:
                found.setdefault(spec.token, job)
        return found

    def element(self, job: str, index: int | None) -> str:
        return job if index is None else f"{job}_{index}"

    def count(self) -> int | None:
        return None

    def accounts(self) -> Sequence[str]:
        return ()

    def _look(self, jobs: Collection[str]) -> list[tuple[Job, Iterable[int]]]:
        """Read jobs and what they wait for, with a keeper there if they need one.

        Elements that were running when a keeper died have thereby been found out.
        """
        seen = self._read(jobs)
        unkept = any(STARTED in job.state or (job.left and not job.held) for job, _ in seen)
        return self._read(jobs) if unkept and rouse(self._spool, self.linger) else seen

    def _read(self, jobs: Collection[str]) -> list[tuple[Job, Iterable[int]]]:
        find = cache(partial(read_job, self._spool))
        seen: list[tuple[Job, Iterable[int]]] = []
        queue = Queue(find)
        for name, indices in _by_job(jobs).items():
            if job := find(name):
                queue.link(job)
                asked = (None,) if indices is None else sorted(indices)
                seen.append((job, [at for index in asked for at in job.positions(index)]))
        return seen

    @_explained()
    def _request(self, verb: str, jobs: Sequence[str]) -> None:
        if ids := [job for job in jobs if _ID.fullmatch(job)]:
            rouse(self._spool, self.linger)
            self._spool.request(verb, ids)
            rouse(self._spool, self.linger)


def default_spool() -> Path:
    """Name the spool of this user on this host."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    base = os.environ.get("HPCPIPE_LOCAL") or Path(state, "hpcpipe", "local")
    # The first label only: what follows it changes with the network a laptop is in.
    return Path(base, os.uname().nodename.partition(".")[0]).absolute()


def _by_job(ids: Collection[str]) -> dict[str, set[int] | None]:
    """Sort ids by job: the indices asked for, or None for all. What is no id names nothing."""
    asked: dict[str, set[int] | None] = {}
    for one in ids:
        if not _ID.fullmatch(one):
            continue
        job, _, index = one.partition("_")
        indices = asked.setdefault(job, set() if index else None)
        if not index:
            asked[job] = None
        elif indices is not None:
            indices.add(int(index))
    return asked
