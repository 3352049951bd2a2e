"""150 widths would be 150 arrays: it waits for more than it needs."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def smooth(image: int, width: int) -> int:
    """Stand for another."""
    return image * width


wf = Workflow("relaxed")
aligned = wf.add(align, image=each(range(150), axis="subject"))
wf.add(smooth, image=aligned, width=each(range(1, 151), axis="width"))
