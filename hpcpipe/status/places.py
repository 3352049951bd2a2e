"""Where each task was submitted last: its batch, its element, and how often before.

An earlier job of a task can still be in a queue: of a scheduler that could not be asked when the
task was submitted again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from hpcpipe.errors import ResultError
from hpcpipe.resources import Resources
from hpcpipe.status.instances import ElementId, Instances
from hpcpipe.store.ledger import BY_US, History, Submission
from hpcpipe.store.record import BatchRecord, RunRecord, read_record
from hpcpipe.store.rundir import RunDir

Task = tuple[str, str]  # node and key


class Place(NamedTuple):
    """Where a task was submitted last: its batch, array index, element, and attempt (from 1)."""

    batch: BatchRecord
    array_index: int | None
    id: ElementId | None  # None while the job has none
    submission: Submission
    attempt: int

    @property
    def element(self) -> str:
        """The element's id in the scheduler's own spelling; empty while there is none."""
        return self.id.spelled if self.id else ""

    @property
    def cancelled(self) -> str:
        """Why we cancelled it, alone or with its batch; empty if we did not."""
        one = self.submission
        if self.element in one.dropped:  # also if it had ended when the rest was cancelled
            return BY_US
        whole = one.cancelled and not one.refused and self.element not in one.spared
        return one.why if whole else ""


class Places(NamedTuple):
    """The last place of each task, and the ``earlier`` ones of those that have several.

    ``unreadable`` are runs whose record is missing or damaged.
    """

    of: dict[Task, Place]
    earlier: dict[Task, list[Place]]
    unreadable: list[int]


NOWHERE = Places({}, {}, [])


def find_places(
    rundir: RunDir,
    history: History,
    instances: Instances,
    wanted: Mapping[str, Collection[str]] | None = None,
    latest: RunRecord | None = None,
) -> Places:
    """Find where tasks were submitted last: those ``wanted``, by node and key, or all.

    ``latest`` is a record that was read already.
    """
    found = Places({}, {}, [])
    for run in sorted({one.run for one in history.submissions.values()}):
        try:
            record = latest if latest and run == latest.run else read_record(rundir, run)
        except ResultError:
            found.unreadable.append(run)
            continue
        for batch in record.batches.values():
            submission = history.submissions.get(batch.id)
            if submission is None or not (wanted is None or any(n in wanted for n in batch.nodes)):
                continue
            _add_batch(found, batch, submission, instances, wanted)
    return found


def _add_batch(
    found: Places,
    batch: BatchRecord,
    submission: Submission,
    instances: Instances,
    wanted: Mapping[str, Collection[str]] | None,
) -> None:
    for node, key, index in batch.tasks():
        if wanted is not None and key not in wanted.get(node, ()):
            continue
        before = found.of.get((node, key))
        if before and before.id:
            found.earlier.setdefault((node, key), []).append(before)
        # An intent that never became a job was no attempt.
        attempt = before.attempt + bool(before.submission.job) if before else 1
        id_ = instances.element(submission, index)
        found.of[node, key] = Place(batch, index, id_, submission, attempt)


def find_continuations(history: History, instances: Instances) -> dict[ElementId, Place]:
    """Find the continuations that may still be in a queue; they run no tasks."""
    found = {}
    for one in history.continuations():
        if id_ := instances.element(one, None):
            batch = BatchRecord(one.batch, (), b"", None, Resources(), None, "")
            found[id_] = Place(batch, None, id_, one, 1)
    return found
