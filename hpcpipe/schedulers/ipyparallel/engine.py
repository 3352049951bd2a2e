"""What an engine does with one element: run its script as a process, within its limits.

An engine does nothing else meanwhile, but its control thread still listens: an element that is
aborted while it runs finds itself among the engine's aborted ones, and ends. What the local
scheduler's keeper does for many elements, `run_element` does for one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcpipe.jobs import JobEnd, Reason
from hpcpipe.schedulers.base import launch
from hpcpipe.schedulers.local import tree

LOOK = 0.2  # seconds between two looks at an element
WEIGH = 1.0  # and at its memory, for which all processes of the host are gone through
GRACE = 5.0  # from asking its processes to end until killing them


class Ended(Exception):
    """An element that failed; its text is a `JobEnd` in JSON.

    Only an exception makes ipyparallel cancel what waits for the element.
    """


@dataclass(frozen=True)
class Element:
    """One element, as it is sent to an engine: paths on the common filesystem, and its limits."""

    folder: str
    script: str
    output: str
    index: int | None
    cpus: int
    memory: int | None
    time: int | None
    umask: int


def run_element(element: Element) -> str:
    """Run an element and return its end in JSON; raise `Ended` unless it succeeded."""
    from IPython.core.getipython import get_ipython

    kernel: Any = get_ipython().kernel  # type: ignore[union-attr]  # an engine has one
    job = kernel.get_parent("shell")["header"]["msg_id"]
    began = weighed = time.monotonic()
    stopping, peak = None, 0.0
    process = _start(element, job)
    leaders = {process.pid: job}

    def end_too(*_: object) -> None:
        tree.kill(leaders, "")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end_too)  # should the engine be ended meanwhile
    try:
        while stopping is None and process.poll() is None:
            now = time.monotonic()
            if now - weighed >= WEIGH:
                weighed = now
                peak = max(peak, tree.memory(tree.find_processes(leaders).get(job, ())) / tree.MIB)
            stopping = _stop(element, job in kernel.aborted, now - began, peak)
            if stopping is None:
                _wait(process, LOOK)
        if stopping in (Reason.CANCELLED, Reason.TIME):
            tree.terminate(leaders, "")
            _wait(process, GRACE)
    finally:
        tree.kill(leaders, "")  # also what it left in the background
        code = process.wait()
        signal.signal(signal.SIGTERM, before)
    kernel.aborted.discard(job)
    end = _end(code, stopping, peak, time.monotonic() - began)
    if end.reason is not None:
        raise Ended(json.dumps(end))
    return json.dumps(end)


def _stop(element: Element, aborted: bool, seconds: float, peak: float) -> Reason | None:
    if aborted:
        return Reason.CANCELLED
    if element.time and seconds > element.time:
        return Reason.TIME
    return Reason.MEMORY if element.memory and peak > element.memory else None


def _end(code: int, stopping: Reason | None, peak: float, wall: float) -> JobEnd:
    reason = stopping or (None if code == 0 else Reason.EXIT if code > 0 else Reason.SIGNAL)
    return JobEnd(
        native=str(reason or "ok"),
        reason=reason,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        max_memory=round(peak) or None,
        wall=wall,
        host=os.uname().nodename,
    )


def _start(element: Element, job: str) -> subprocess.Popen[bytes]:
    named = {"HPCPIPE_JOB_ID": job, "HPCPIPE_CPUS": str(element.cpus)}
    if element.index is not None:
        named["HPCPIPE_INDEX"] = str(element.index)
    with Path(element.folder, element.output).open("ab") as output:
        return subprocess.Popen(
            ("/bin/sh", "-c", launch(Path(element.script), ("/bin/sh",))),
            cwd=element.folder, env={**os.environ, **named},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            umask=element.umask, start_new_session=True,
        )  # fmt: skip


def _wait(process: subprocess.Popen[Any], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
