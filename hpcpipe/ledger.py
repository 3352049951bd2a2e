"""The append-only record of a workflow's submissions: facts, never states.

One JSON object a line, on disk before the next thing happens: ``run`` (a plan was made),
``submitting`` (about to hand a batch over, with its token), ``submitted`` (its job id),
``released``, ``cancelled``, ``dropped``. An intent without an id means that a client died in
between: the token finds the job.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Submission(NamedTuple):
    """A batch that was handed over, or was about to be (``job`` None)."""

    batch: str
    run: int
    token: str
    time: float
    held: bool
    job: str | None = None
    released: bool = False
    cancelled: bool = False
    why: str = ""  # it was cancelled, in words
    dropped: frozenset[str] = frozenset()  # elements that were cancelled by themselves
    refused: bool = False  # by the scheduler, it or a batch of the same submission
    hint: str = ""  # options that would mend a refusal


class History(NamedTuple):
    """What the ledger's lines amount to."""

    runs: list[dict[str, Any]]
    submissions: dict[str, Submission]  # by batch

    @property
    def last(self) -> dict[str, Any]:
        """The facts of the latest run."""
        return self.runs[-1]

    def adrift(self) -> list[Submission]:
        """Intents without an id: may have been submitted."""
        return [s for s in self.submissions.values() if s.job is None and not s.cancelled]

    def void(self) -> list[Submission]:
        """Intents that were given up, as the scheduler did not know them."""
        return [
            one
            for one in self.submissions.values()
            if one.job is None and one.cancelled and not one.refused
        ]

    def held(self) -> list[Submission]:
        """Accepted submissions that were handed over held and that nobody has released yet."""
        return [
            s
            for s in self.submissions.values()
            if s.held and s.job is not None and not s.released and not s.cancelled
        ]


class Ledger:
    """Appends to the record; written by whoever holds the run's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> None:
        """Add one fact, on disk before this returns.

        A client killed in the middle of a line leaves half of one: a newline first keeps the next
        line whole.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts}) + "\n"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(fd, line.encode())
            os.fsync(fd)
        finally:
            os.close(fd)

    def run(self, number: int, **facts: Any) -> None:
        """Record that a plan was made and is about to be submitted."""
        self.append("run", run=number, **facts)

    def submitting(self, batch: str, run: int, token: str, held: bool) -> None:
        """Record the intent to submit, before the command runs."""
        self.append("submitting", batch=batch, run=run, token=token, held=held)

    def submitted(self, batch: str, job: str) -> None:
        """Record the scheduler's id."""
        self.append("submitted", batch=batch, job=job)

    def released(self, batches: Sequence[str]) -> None:
        """Record that held batches were let go."""
        self.append("released", batches=list(batches))

    def cancelled(self, batches: Sequence[str], why: str) -> None:
        """Record that whole batches were cancelled by us, or never came to be."""
        self.append("cancelled", batches=list(batches), why=why)

    def dropped(self, batch: str, elements: Sequence[str]) -> None:
        """Record that elements of a batch were cancelled by us."""
        self.append("dropped", batch=batch, elements=list(elements))

    def refused(self, batches: Sequence[str], why: str, hint: str) -> None:
        """Record that the scheduler refused one of these batches, so that none is with it."""
        self.append("refused", batches=list(batches), why=why, hint=hint)

    def read(self) -> History:
        """Replay the record; a line that a killed client left half-written is passed over."""
        history = History([], {})
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return history
        for line in lines:
            try:
                fact = json.loads(line)
            except ValueError:
                continue
            _replay(history, fact)
        return history


def _replay(history: History, fact: dict[str, Any]) -> None:
    submissions = history.submissions

    def change(batch: str, **facts: Any) -> None:
        submissions[batch] = submissions[batch]._replace(**facts)

    match fact["event"]:
        case "run":
            history.runs.append(fact)
        case "submitting":
            batch = fact["batch"]
            submissions[batch] = Submission(
                batch, fact["run"], fact["token"], fact["time"], fact["held"]
            )
        case "submitted":
            change(fact["batch"], job=fact["job"])
        case "released":
            for batch in fact["batches"]:
                change(batch, released=True)
        case "dropped":
            batch = fact["batch"]
            change(batch, dropped=submissions[batch].dropped | set(fact["elements"]))
        case "cancelled" | "refused" as event:
            for batch in fact["batches"]:  # of those refused together, some were not even begun
                unbegun = Submission(batch, history.last["run"], "", fact["time"], held=False)
                submissions.setdefault(batch, unbegun)
                refused, hint = event == "refused", fact.get("hint", "")
                change(batch, cancelled=True, why=fact["why"], refused=refused, hint=hint)
