"""Torque.

Commands: ``qsub``, ``qrls``, ``qstat -x -t`` (XML), ``qdel``, ``qselect``. Written against Torque
"master" of 2020: golden samples of what it printed, and a stand-in for its commands that keeps to
them. Not tried on a real one.

Dependencies: ``-W depend=afterok:``, and ``afteranyarray:`` after an array.

Site keys: ``[torque] options``, extra ``#PBS`` directives passed through whole, and ``account``,
the option that names the account.

Oddities worth knowing, besides those that PBS has too:

* Arrays have dependencies of their own kind: ``afteranyarray``. With any other, or after an array
  with ``afterokarray`` of which an element failed, a job stays held for ever. So what waits for an
  array, or for one of its elements, waits for its end, and checks by itself whether it succeeded.
* A dependency on a job that has ended, or is unknown, is refused.
* An ended job is C, and forgotten after ``keep_completed`` seconds; how it ended that left no
  outcome is not known afterwards.
* A job that was deleted, its predecessor having failed, has the exit_status of a cancelled one; its
  comment tells.
* exit_status is 128 and a signal, as from a shell, so that ``exit 139`` and a fault look the same;
  256 and a signal if it was cancelled; -11 for the time.
* ``-t 5-1`` has been seen to bring the server down. Steps (``1-9:2``) are refused.
* Elements that ``%k`` keeps back are H, with no type of hold.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from hpcpipe.jobs import After, Capabilities
from hpcpipe.schedulers.base import Done
from hpcpipe.schedulers.pbs import PBS
from hpcpipe.schedulers.pbs.qstat import DELETED, SIGNAL, Row

_SPOOLS = ("/var/spool/torque", "/var/lib/torque", "/var/spool/pbs")
_NAMES = {"exit_status": "Exit_status", "start_time": "stime"}
_LIMITS = {-10: -27, -11: -29, -12: -28}  # as PBS has them


class Torque(PBS):
    """Torque by its command line tools; its answers are converted to the words of PBS."""

    name: ClassVar[str] = "torque"
    capabilities: ClassVar[Capabilities] = Capabilities(elementwise=False, success=False, mail=True)
    over: ClassVar[str] = "C"

    def find_instance(self) -> str:
        name = os.environ.get("PBS_DEFAULT", "")
        for spool in (os.environ.get("PBS_SERVER_HOME"), *_SPOOLS):
            if spool and not name:
                with suppress(OSError):
                    name = Path(spool, "server_name").read_text("utf-8", "replace").strip()
        return name.lower() or self.ask_instance()

    def dependency(self, after: Sequence[After]) -> str:
        kinds: dict[str, list[str]] = {}
        for one in after:
            if "[" not in one.job:
                kind = "afterok" if one.well else "afterany"
            else:
                kind = "afteranyarray" if one.element is None else "afterany"
            kinds.setdefault(kind, []).append(self.element(one.job, one.element))
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds.items())

    def poll_command(self, jobs: Collection[str]) -> tuple[str, ...]:
        return ("qstat", "-x", "-t", *self.whole(jobs))

    def account_command(self, jobs: Collection[str], since: float) -> tuple[str, ...]:
        del since
        return self.poll_command(jobs)

    def find_command(self) -> tuple[str, ...]:
        return ("qstat", "-x")

    def rows(self, done: Done) -> Iterator[tuple[str, Row]]:
        self.refuse_but_for_unknown(done)
        jobs = ElementTree.fromstring(done.stdout) if done.stdout.strip() else ()
        for job in jobs:
            row = {_NAMES.get(one.tag, one.tag): _value(one) for one in job}
            yield row.pop("Job_Id"), {**row, **_end(row)}


def _value(element: ElementTree.Element) -> Any:
    """Read an attribute: text, or more attributes."""
    if len(element):
        return {one.tag: one.text or "" for one in element}
    text = element.text or ""
    if element.tag != "Variable_List":
        return text
    pairs = (part.partition("=") for part in text.split(","))
    return {name: value for name, _, value in pairs}


def _end(row: Row) -> Mapping[str, Any]:
    """Return how a job ended, in the words of PBS."""
    if row["job_state"] != "C":
        return {}
    if row.get("comment", "").startswith("Job deleted as result of dependency"):
        return {"Exit_status": None}
    if "Exit_status" not in row:
        return {"substate": DELETED}
    code = int(row["Exit_status"])
    if code > SIGNAL:
        return {"Exit_status": code, "substate": DELETED}
    return {"Exit_status": _LIMITS.get(code, code)}
