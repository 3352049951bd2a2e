"""The nodes of a run as a table: a line for each, as far as the screen has lines for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from hpcpipe.jobs import State
from hpcpipe.views.text import cut

Counts = Counter[State]

_COLUMNS = (
    ("done", (State.DONE,)),
    ("run", (State.RUNNING,)),
    ("wait", (State.QUEUED, State.HELD, State.WAITING)),
    ("fail", (State.FAILED, State.CANCELLED, State.LOST)),
    ("blocked", (State.BLOCKED,)),
    ("unknown", (State.UNKNOWN,)),
)
_BAR = 24  # columns of a progress bar, if there is room
_CELL = 9  # columns of a number and the space before it


def node_table(
    nodes: Mapping[str, Counts],
    width: int,
    most: int,
    *,
    bars: bool = False,
    unknown: Collection[str] = (),
) -> Iterator[str]:
    """Yield one line per node, at most ``most``, without the columns that are zero for all.

    Of those ``unknown`` it is not known how many tasks they have.

    Where there are more, those that have wholly succeeded become one line, and if need be those
    that have no failures and do not run another.
    """
    total = sum(nodes.values(), Counter())
    shown = [
        (title, states)
        for title, states in _COLUMNS
        if title in ("done", "fail") or any(total[state] for state in states)
    ]
    rows = [*(nodes.items() if len(nodes) <= most else _folded(nodes, most, unknown))]
    room = width - 8 - _CELL * len(shown)
    name_width = min(max(4, *(len(name) for name, _ in rows)), max(room, 12))
    bar = min(_BAR, room - name_width - 4) if bars else 0
    yield "  ".join(["node".ljust(name_width), "   all", *(f"{title:>7}" for title, _ in shown)])
    for name, counts in rows:
        cells = [f"{sum(counts[state] for state in states):>7}" for _, states in shown]
        drawn = [f"[{_bar(counts, bar)}]"] if bar > 5 else []
        named = cut(name, name_width).ljust(name_width)
        count = f"{counts.total() or ''}?" if name in unknown else counts.total()
        yield "  ".join([named, f"{count:>6}", *cells, *drawn])


def _folded(
    nodes: Mapping[str, Counts], most: int, unknown: Collection[str]
) -> Iterator[tuple[str, Counts]]:
    """Yield the rows that need attention, and the sums of the others."""
    ended = {name for name, counts in nodes.items() if counts[State.DONE] == counts.total()}
    done = ended - {*unknown}
    ranks = {name: _rank(counts) for name, counts in nodes.items() if name not in done}
    room = most - bool(done)
    kept = set(sorted(ranks, key=ranks.__getitem__)[: room if len(ranks) <= room else room - 1])
    yield from ((name, counts) for name, counts in nodes.items() if name in kept)
    for names, words in ((ranks.keys() - kept, "more nodes"), (done, "nodes succeeded")):
        if names:
            yield f"{len(names)} {words}", sum((nodes[name] for name in names), Counter())


def _rank(counts: Counts) -> int:
    """Return how little a node needs to be seen: it failed, runs, waits, or is only blocked."""
    if any(counts[state] for state in (State.FAILED, State.CANCELLED, State.LOST)):
        return 0
    return 1 if counts[State.RUNNING] else 2 if any(counts[s] for s in State if s.live) else 3


def _bar(counts: Counts, width: int) -> str:
    """Draw how far a node is: ``#`` succeeded, ``x`` failed or blocked, ``>`` running."""
    bad = sum(counts[state] for state in State if state.bad)
    bar, count = "", 0
    for glyph, number in (("#", counts[State.DONE]), ("x", bad), (">", counts[State.RUNNING])):
        count += number
        bar += glyph * (width * count // max(1, counts.total()) - len(bar))
    return bar.ljust(width, ".")
