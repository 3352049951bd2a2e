"""Draw the poster's study: its duration beside the poster's own figure, and the slots in use.

::

    sacct -nPX -j JOBS -o Start,End | python figure.py SLOTS BOUND MINUTE study.svg

``BOUND`` is the least time that 69 subjects can take on the slots, in seconds; ``MINUTE`` is the
number of seconds for a minute of the study.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path

THEIRS = {"1 subject,\nserial": 32, "1 subject,\nparallel": 30, "69 subjects,\nparallel": 100}


def draw(
    spans: Sequence[tuple[float, float]], slots: int, bound: float, minute: float, file: Path
) -> None:
    """Draw when elements started and ended, in seconds, beside the poster's figures."""
    import matplotlib

    matplotlib.rcParams |= {"svg.hashsalt": "poster", "svg.fonttype": "none"}
    from matplotlib.figure import Figure

    first = min(start for start, _ in spans)
    changes: Counter[float] = Counter()
    for start, end in spans:
        changes[(start - first) / minute] += 1
        changes[(end - first) / minute] -= 1
    times = sorted(changes)
    running = list(accumulate(changes[at] for at in times))
    took = times[-1]

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    bars, use = figure.subplots(1, 2, width_ratios=(2, 3))
    minutes = {
        **THEIRS,
        "69 subjects,\nhpcpipe": took,
        "69 subjects,\nthe least": bound / minute,
    }
    colours = ["0.7"] * len(THEIRS) + ["tab:blue", "tab:orange"]
    bars.barh(list(minutes), list(minutes.values()), color=colours)
    bars.invert_yaxis()
    for at, value in enumerate(minutes.values()):
        bars.text(value + 1, at, f"{value:.0f}", va="center")
    bars.set(xlabel="minutes (grey: the poster's)", xlim=(0, 115))
    bars.spines[["top", "right"]].set_visible(False)
    use.fill_between(times, running, step="post", color="tab:blue", linewidth=0)
    use.axvline(bound / minute, color="tab:orange", label="the least it can take")
    used = sum(end - start for start, end in spans) / minute / (slots * took)
    use.set(xlabel="minutes", ylabel=f"slots in use, of {slots}", ylim=(0, slots * 1.05))
    use.set_title(f"69 subjects: {used:.0%} of the slots' time in use", fontsize="medium")
    use.set_xlim(0)
    use.legend(loc="lower left")
    use.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.strip()).timestamp()


def main(slots: str, bound: str, minute: str, file: str) -> None:
    rows = (line.split("|") for line in sys.stdin)
    draw(
        [(_seconds(start), _seconds(end)) for start, end in rows],
        int(slots),
        float(bound),
        float(minute),
        Path(file),
    )


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(
            "usage: sacct -nPX -j JOBS -o Start,End | python figure.py SLOTS BOUND MINUTE FILE"
        )
    main(*sys.argv[1:])
