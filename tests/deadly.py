"""Clients that die at a step, with a scheduler in memory: at each one in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import QUEUED, RUNNING, Lab

from hpcpipe.store.ledger import Ledger
from hpcpipe.store.outcomes import Store
from hpcpipe.store.rundir import write_whole

Deadly = Callable[..., int]


class Killed(BaseException):
    """A client's death."""


def skip_naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note what would have been waited for, and let nothing wait."""
    naps: list[float] = []
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=naps.append)
    for module in ("hand_over", "refusal", "submit", "recover"):
        monkeypatch.setattr(f"hpcpipe.submit.{module}.time", clock)
    monkeypatch.setattr("hpcpipe.submit.recover._IN_DOUBT", -1.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return naps


def make_deadly(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Deadly:
    """Make what submits or does else, dies at a step, and gives how many there were.

    A step ends with a file in its place, the half or the whole of a line in the ledger, or a job
    submitted, released or cancelled. What may begin to run does so meanwhile.
    """
    steps: Iterator[int] = count()
    dies: int | None = None

    def step(name: str = "released") -> None:
        if name in ("submitted", "released", "cancelled") and next(steps) == dies:
            raise Killed

    append, mark = Ledger.append, Store.cancel

    def append_and_die(ledger: Ledger, event: str, **facts: Any) -> None:
        before = ledger.path.stat().st_size if ledger.path.exists() else 0
        append(ledger, event, **facts)
        try:
            step()
        except Killed:
            os.truncate(ledger.path, (before + ledger.path.stat().st_size) // 2)
            raise
        step()

    def write_and_die(path: Path, data: bytes, mode: int = 0o600) -> None:
        write_whole(path, data, mode)
        step()

    def mark_and_die(store: Store, batch: str, indices: Iterable[int] | None = None) -> None:
        mark(store, batch, indices)
        step()

    def act(at: int | None = None, command: Callable[[], object] = lab.submit) -> int:
        nonlocal steps, dies
        steps, dies = count(), at
        lab.scheduler.hook = step
        with suppress(Killed):
            command()
        for name, job in lab.scheduler.jobs.items():
            for one in (name, f"{name}_0"):
                if not job.after and lab.scheduler.says.get(one) == QUEUED:
                    lab.scheduler.says[one] = RUNNING
        return next(steps)

    monkeypatch.setattr(Ledger, "append", append_and_die)
    monkeypatch.setattr(Store, "cancel", mark_and_die)
    for module in ("submit.files", "submit.continuation", "store.rundir"):
        monkeypatch.setattr(f"hpcpipe.{module}.write_whole", write_and_die)
    return act
