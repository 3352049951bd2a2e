"""Remove each subject's mean, smooth at two widths, average over subjects."""

from pathlib import Path

from hpcpipe import Workflow, each, task


@task(memory="200M", time="5m")
def center(source: Path) -> list[float]:
    """Shift a signal to mean zero."""
    values = [float(word) for word in source.read_text().split()]
    if not values:
        raise ValueError(f"{source.name} is empty")
    mean = sum(values) / len(values)
    return [value - mean for value in values]


@task(memory="200M", time="5m")
def smooth(signal: list[float], width: int) -> list[float]:
    """Average over a window that slides along the signal."""
    windows = [signal[at : at + width] for at in range(len(signal) - width + 1)]
    return [sum(window) / width for window in windows]


@task(memory="200M", time="5m")
def average(signals: list[list[float]]) -> list[float]:
    """Average signals point by point."""
    return [round(sum(column) / len(column), 2) for column in zip(*signals, strict=True)]


files = sorted(Path("signals").glob("*.txt"))

wf = Workflow("signals", base_dir="work")
centered = wf.add(center, source=each(files, axis="subject"))
smoothed = wf.add(smooth, signal=centered, width=each([2, 3], axis="width"))  # subject × width
wf.add(average, signals=smoothed.gather("subject"))  # width
