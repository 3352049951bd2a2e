"""Draw a draft as SVG or HTML: batches as boxes, dependencies as lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from hpcpipe.errors import UsageError
from hpcpipe.planner.batch import Wait
from hpcpipe.submit.prepare import Draft
from hpcpipe.views.plan import kind_of

_WIDE, _HIGH = 210, 44  # size of a box, in pixels
_GAP, _DROP = 24, 56  # between boxes: across, down


@dataclass(frozen=True)
class Box:
    """One batch: its position in pixels, and its text."""

    x: float
    y: float
    lines: tuple[str, str]
    more: str  # shown on hover


@dataclass(frozen=True)
class Line:
    """One dependency: a curve between two boxes, and its kind: each, all, element or relaxed."""

    path: str
    kind: str


def write_drawing(draft: Draft, file: Path, told: Sequence[str]) -> None:
    """Write the drawing of a draft to a file; an HTML page also shows the lines of ``told``.

    Raises UsageError if the name ends in neither .svg nor .html, or the file cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in (".svg", ".html"):
        raise UsageError(f"--draw {file}: the name must end in .svg or .html")
    boxes, lines = draw(draft)
    loader = jinja2.PackageLoader("hpcpipe.templates", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(f"plan{kind}.j2").render(
        title=draft.plan.frozen.workflow,
        boxes=boxes,
        lines=lines,
        told=told,
        width=max((box.x for box in boxes), default=0) + _WIDE + _GAP,
        height=max((box.y for box in boxes), default=0) + _HIGH + _GAP,
        wide=_WIDE,
        high=_HIGH,
    )
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"--draw {file}: {error.strerror}") from None


def draw(draft: Draft) -> tuple[list[Box], list[Line]]:
    """Lay out the batches in rows, each below and close to what it waits for."""
    batches = [prepared.batch for prepared in draft.prepared]
    above = [[w.on for w in batch.waits if isinstance(w.on, int)] for batch in batches]
    rows: list[list[int]] = []
    row: list[int] = []
    for number in range(len(batches)):
        at = max((row[parent] + 1 for parent in above[number]), default=0)
        row.append(at)
        rows += [[] for _ in range(at + 1 - len(rows))]
        rows[at].append(number)
    x: dict[int, float] = {}
    widest = max(map(len, rows), default=0)
    for members in rows:
        members.sort(key=lambda one: _mean([x[parent] for parent in above[one]]))
        left = (widest - len(members)) * (_WIDE + _GAP) / 2 + _GAP
        x |= {one: left + place * (_WIDE + _GAP) for place, one in enumerate(members)}
    y = [_GAP + at * (_HIGH + _DROP) for at in row]
    boxes = [
        Box(
            x[number],
            y[number],
            (f"[{number}] {one.batch.name}", kind_of(one.batch)),
            f"{one.id}: {one.route.resources}; {one.route.why}",
        )
        for number, one in enumerate(draft.prepared)
    ]
    lines = [
        Line(_curve(boxes[wait.on], boxes[number]), _kind(wait))
        for number, batch in enumerate(batches)
        for wait in batch.waits
        if isinstance(wait.on, int)
    ]
    return boxes, lines


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _kind(wait: Wait) -> str:
    if wait.relaxed:
        return "relaxed"
    return "element" if wait.element is not None else wait.kind


def _curve(above: Box, below: Box) -> str:
    x1, y1, x2, y2 = above.x + _WIDE / 2, above.y + _HIGH, below.x + _WIDE / 2, below.y
    bend = (y2 - y1) / 2
    return f"M{x1:g},{y1:g} C{x1:g},{y1 + bend:g} {x2:g},{y2 - bend:g} {x2:g},{y2:g}"
