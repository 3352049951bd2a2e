"""ipyparallel: the engines of a running IPython cluster.

Its controller stays when hpcpipe goes, and with it all tasks: those that wait for others wait in
its load balancer, and its hub tells any client, later, what became of them. Several clients may use
it at once, and for other things too. Tried on a real ipyparallel 9.2, in the tests; needs
``pip install 'hpcpipe[ipyparallel]'`` where hpcpipe is typed and where the engines run.

Each element of an array is a task of its own, whose id is that of its message. The element's script
is run by an engine as a process, as the local scheduler would run it, with the same directives.

Dependencies: ``after=``, which the controller's load balancer keeps.

Site keys: ``[ipyparallel] profile``, ``cluster_id`` and ``connection_file`` tell which cluster, as
they do to ``ipyparallel.Client``; without any it is the default one of your IPython profile.

Oddities worth knowing:

* The hub must keep records: ``ipcontroller --sqlitedb`` (or ``--dictdb``, which forgets all but the
  last 1,024 tasks). By default it has no database, and nothing is submitted to such a controller.
* An engine runs one element at a time, and nobody counts its cpus: start as many as there is room.
* Limits of time and memory are kept by us, on the engine; memory is looked at once a second.
* Nothing can be held. A task that waits for others and is cancelled alone stays in the queue until
  these have ended, and is then not run.
* Should the controller end, its tasks go with it, and are reported as lost. An engine that is ended
  ends what it runs; should it be killed, that goes on unwatched.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from hpcpipe.errors import ConfigError, SchedulerError, SchedulerUnavailable, SubmitUnclear
from hpcpipe.indices import parse_indices
from hpcpipe.jobs import After, Capabilities, JobEnd, JobStatus, Reason, State
from hpcpipe.schedulers.ipyparallel.engine import Element, run_element
from hpcpipe.schedulers.local.job import Spec, position, read_directives

_PATIENCE = 10.0  # seconds that the controller gets to answer
_MOST = 500  # ids in one question: the hub's data base knows no longer ones
_WAITS, _RUNS = JobStatus(State.QUEUED, "pending"), JobStatus(State.RUNNING, "running")
_FACTS = ("engine_uuid", "completed", "started", "result_content", "result_buffers")
_UPSTREAM = ("ImpossibleDependency", "InvalidDependency")


class Ipyparallel:
    """The verbs, each with a connection of its own."""

    name: ClassVar[str] = "ipyparallel"
    capabilities: ClassVar[Capabilities] = Capabilities(hold=False)

    def __init__(
        self,
        profile: str | None = None,
        cluster_id: str | None = None,
        connection_file: str | None = None,
    ) -> None:
        self._where = {"profile": profile, "cluster_id": cluster_id}
        self._file = connection_file

    def instance(self) -> str:
        # A controller that is started anew by this file knows of the tasks of the one before that
        # they are gone; ids are random, so that none of them ever means another's task.
        file = Path(self._file or self._default_file())
        try:
            file.stat()
        except OSError as error:
            raise SchedulerUnavailable(
                f"{file}: {error.strerror}\n(`ipcluster start` starts a cluster)"
            ) from None
        return f"ipyparallel:{file.resolve()}"

    def _default_file(self) -> Path:
        """Name the file where a profile's controller writes how to connect to it."""
        home = Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython")
        name = "-".join(filter(None, ("ipcontroller", self._where["cluster_id"], "client.json")))
        return home / f"profile_{self._where['profile'] or 'default'}" / "security" / name

    def submit(
        self,
        script: Path,
        after: Sequence[After] = (),
        *,
        token: str,
        held: bool = False,  # noqa: ARG002  nothing can be
    ) -> str:
        spec = read_directives(script, script.read_text("utf-8", "surrogateescape"), Spec())
        umask = os.umask(0o077)
        os.umask(umask)
        with self._client(kind=SubmitUnclear) as client:
            from ipyparallel import Dependency

            view = client.load_balanced_view()
            sent: list[str] = []
            for index in spec.indices if spec.array else (None,):
                element = Element(
                    folder=str(script.parent.parent.absolute()),
                    script=f"{script.parent.name}/{script.name}",
                    output=spec.output_of("%j", index or 0),
                    index=index,
                    cpus=spec.cpus,
                    memory=spec.memory,
                    time=spec.time,
                    umask=umask,
                )
                ids = [one for each in after for one in self._waited_for(each, index)]
                # One kind for all: where any end will do for some, the script's gate decides.
                any_end = not all(each.well for each in after)
                before = Dependency(ids, success=True, failure=any_end) if ids else []
                label = f"hpcpipe {len(sent)} [{spec.array}] {token}"
                with view.temp_flags(after=before, label=label):
                    sent += view.apply_async(run_element, element).msg_ids
            job = f"{sent[0]}[{spec.array}]" if spec.array else sent[0]
            if sent != [*_elements(job)]:
                client.abort(sent)
                raise SchedulerError(f"{sent[0]}: its elements have no successive ids")
            # What the hub has on record has left this process.
            give_up = time.monotonic() + _PATIENCE
            while len(_ask(client, sent, ("msg_id",))) < len(sent):
                if time.monotonic() > give_up:
                    raise SubmitUnclear("the hub has no record of what was sent to it")
        return job

    def release(self, jobs: Sequence[str]) -> None:
        with self._client(jobs):
            pass  # nothing is ever held

    def poll(self, jobs: Collection[str]) -> Mapping[str, JobStatus]:
        with self._client(jobs) as client:
            live = _live(client, _ask(client, _all(jobs), _FACTS[:2]))
        return {one["msg_id"]: _RUNS if one["engine_uuid"] else _WAITS for one in live}

    def account(
        self,
        jobs: Collection[str],
        since: float,  # noqa: ARG002  ids are never used twice
    ) -> Mapping[str, JobEnd]:
        with self._client(jobs) as client:
            records = _ask(client, _all(jobs), _FACTS)
        return {one["msg_id"]: _end(one) for one in records if one["completed"] is not None}

    def cancel(self, jobs: Sequence[str]) -> None:
        with self._client(jobs) as client:
            live = _live(client, _ask(client, _all(jobs), _FACTS[:2]))
            if live:
                client.abort([one["msg_id"] for one in live], block=True)

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        with self._client(tokens) as client:
            query = {"completed": None}
            records = client.db_query(query, keys=[*_FACTS[:2], "label"]) if tokens else ()
            for one in _live(client, records):
                match = re.fullmatch(r"hpcpipe (\d+) \[(.*?)\] (.*)", one["label"] or "")
                if match and match[3] in tokens:
                    stem, _, number = one["msg_id"].rpartition("_")
                    first = f"{stem}_{int(number) - int(match[1])}"
                    found[match[3]] = f"{first}[{match[2]}]" if match[2] else first
        return found

    def element(self, job: str, index: int | None) -> str:
        stem, first, indices = _read(job)
        at = 0 if index is None or not indices else position(indices, index)
        return f"{stem}_{first + at}" if at is not None else ""

    def count(self) -> int | None:
        return None

    def accounts(self) -> Sequence[str]:
        return ()

    def _waited_for(self, after: After, index: int | None) -> Sequence[str]:
        if after.kind == "each":
            return (self.element(after.job, index),)
        if after.element is not None:
            return (self.element(after.job, after.element),)
        return _elements(after.job)

    @contextmanager
    def _client(
        self,
        asked: Collection[str] = ("",),
        kind: type[SchedulerUnavailable] = SchedulerUnavailable,
    ) -> Iterator[Any]:
        """Connect, unless there is nothing to ask; tell in our words where that is not possible."""
        if not asked:
            yield None
            return
        try:
            import ipyparallel
        except ImportError:
            raise ConfigError(
                "scheduler ipyparallel: ipyparallel is not installed here; "
                "type: pip install 'hpcpipe[ipyparallel]'"
            ) from None
        known = {name: value for name, value in self._where.items() if value}
        try:
            with redirect_stdout(sys.stderr):  # where it reports that it waits for a file
                client = ipyparallel.Client(self._file, timeout=_PATIENCE, **known)
        except (OSError, ipyparallel.error.TimeoutError) as error:
            raise SchedulerUnavailable(f"{error}\n(`ipcluster start` starts a cluster)") from error
        try:
            yield client
        except ipyparallel.error.TimeoutError as error:
            raise kind(f"{error}\n(the controller does not answer)") from error
        except ipyparallel.error.RemoteError as error:
            raise SchedulerError(f"{error.ename}: {error.evalue}") from error
        except ipyparallel.error.NoEnginesRegistered as error:
            raise SchedulerError(f"{error}\n(start engines: `ipengine`)") from error
        finally:
            client.close()


def _ask(client: Any, ids: Sequence[str], facts: Sequence[str]) -> list[Mapping[str, Any]]:
    """Ask the hub's records of these tasks, those that it has."""
    parts = [ids[at : at + _MOST] for at in range(0, len(ids), _MOST)]
    return [
        record
        for part in parts
        for record in client.db_query({"msg_id": {"$in": part}}, keys=[*facts])
    ]


def _live(client: Any, records: Collection[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return those without an end that the hub still knows, which may be another controller."""
    open_ = [record for record in records if record["completed"] is None]
    if not open_:
        return []
    known = client.queue_status(verbose=True)
    kept = {
        *known.pop("unassigned"),
        *(one for engine in known.values() for one in engine["tasks"]),
    }
    return [record for record in open_ if record["msg_id"] in kept]


@lru_cache(4096)
def _read(job: str) -> tuple[str, int, Sequence[int]]:
    """Read an id: the stem and the number of the first message, and the indices of an array."""
    match = re.fullmatch(r"(.+)_(\d+)(?:\[(.+)\])?", job)
    if match is None:
        return "", 0, ()
    return match[1], int(match[2]), parse_indices(match[3]) if match[3] else ()


def _elements(job: str) -> Sequence[str]:
    stem, first, indices = _read(job)
    return [f"{stem}_{first + at}" for at in range(len(indices) or 1)]


def _all(jobs: Collection[str]) -> Sequence[str]:
    return [*dict.fromkeys(element for job in jobs for element in _elements(job))]


def _end(record: Mapping[str, Any]) -> JobEnd:
    """Read how a task ended: from what `run_element` reported, or else from ipyparallel."""
    from ipyparallel.serialize import deserialize_object

    content = record["result_content"] or {}
    if content.get("status") == "ok":
        return _told(deserialize_object(record["result_buffers"])[0])
    if content.get("ename") == "Ended":
        return _told(content["evalue"])
    if content.get("status") == "aborted":
        return JobEnd("aborted", Reason.CANCELLED)
    native = f"{content.get('ename')}: {content.get('evalue')}"
    return JobEnd(native, Reason.UPSTREAM if content.get("ename") in _UPSTREAM else Reason.NODE)


def _told(text: str) -> JobEnd:
    native, reason, *facts = json.loads(text)
    return JobEnd(native, Reason(reason) if reason else None, *facts)
