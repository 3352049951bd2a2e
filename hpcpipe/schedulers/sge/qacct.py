"""How a job of Grid Engine ended, as ``qacct`` has it.

Loosely read, since the dialects differ: by name, with or without units. ``failed`` says what kind
of end it was, and only with 0 does ``exit_status`` say more; many of those that never ran have 0.

* ``failed 37`` is a limit, and not which: memory and wall time tell. A process that by itself wants
  more than ``h_vmem`` is not killed but gets no memory, and ends as it likes.
* ``failed 100`` is a signal, and 9 is what ``qdel`` sends.
* ``failed 25`` is to start again: every start leaves a record of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hpcpipe.jobs import JobEnd, Reason

_RESCHEDULED, _APPLICATION, _LIMIT, _SIGNALLED = 25, 30, 37, 100  # values of `failed`
_UNITS = {"": 1 / 1024 / 1024, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}


def read_records(text: str) -> dict[str, JobEnd]:
    """Read the records of ``qacct -j`` by element: of several of one, the last counts.

    Raises ValueError for a record that is not whole.
    """
    ends: dict[str, JobEnd] = {}
    for record in re.split(r"^=+$", text, flags=re.M):
        facts = dict(re.findall(r"^(\w+)[ \t]+(.*?)[ \t]*$", record, re.M))
        if "jobnumber" not in facts:
            continue  # before the first one, or a sum after the last
        if not {"failed", "exit_status"} <= facts.keys():
            raise ValueError(f"the record of {facts['jobnumber']} is cut short")
        end = _end(facts)
        for element in spread(facts["jobnumber"], facts.get("taskid", "")):
            if end is not None:
                ends[element] = end
            else:
                ends.pop(element, None)
    return ends


def spread(job: str, tasks: str) -> Iterator[str]:
    """Spread a row into its elements: 7 and ``1-5:2,9`` → ``7.1 7.3 7.5 7.9``."""
    if not tasks[:1].isdigit():
        yield job  # no array: nothing, or "undefined"
        return
    for part in tasks.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{job}.{index}"


def _end(facts: Mapping[str, str]) -> JobEnd | None:
    """Read one record of the accounting, or None where the job is to start again."""
    failed, _, words = facts["failed"].partition(":")
    code, status = int(failed), int(facts["exit_status"].partition(" ")[0])
    if code == _RESCHEDULED:
        return None
    wall = float(re.match(r"[\d.]*", facts.get("ru_wallclock", ""))[0] or 0)  # type: ignore[index]
    peak, asked = _mib(facts.get("maxvmem", "")), facts.get("category", "")
    limit = re.search(r"\bh_vmem=([^, ]+)", asked)
    full = limit is not None and peak > _mib(limit[1]) * int(facts.get("slots") or 1) > 0
    reason = _reason(code, status, wall, asked, full)
    ended = reason in (None, Reason.EXIT)
    return JobEnd(
        native=f"failed {code}: {words.strip()}" if code else f"exit {status}",
        reason=reason,
        exit_code=status if ended else None,
        signal=status - 128 if not ended and status > 128 else None,
        max_memory=round(peak) or None,
        wall=wall,
        host=facts.get("hostname", ""),
    )


def _mib(text: str) -> float:
    """Read memory (``435.094MB``, ``300M``, bytes) as MiB; nothing is 0."""
    match = re.match(r"([\d.]+)([KMGT]?)", text.upper())
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _reason(code: int, status: int, wall: float, asked: str, full: bool) -> Reason | None:
    """Return why a job failed. ``asked`` is what it requested, as the accounting has it; ``full``
    means that it exceeded its memory."""
    limits = re.findall(r"\b[hs]_rt=([\d:]+)", asked)
    over = any(wall >= _seconds(limit) for limit in limits)
    if code in (0, _APPLICATION):
        return Reason.EXIT if status else None
    if code == _LIMIT:
        return Reason.TIME if not full and (over or "h_cpu=" in asked) else Reason.MEMORY
    if code == _SIGNALLED:
        return Reason.TIME if over else Reason.CANCELLED if status == 137 else Reason.SIGNAL
    return Reason.START if code < _APPLICATION else Reason.NODE


def _seconds(clock: str) -> int:
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part or 0)
    return seconds
