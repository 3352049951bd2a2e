"""150 widths would take 150 arrays: tasks wait for more than they need."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def smooth(image: int, width: int) -> int:
    """Do a second step."""
    return image * width


wf = Workflow("relaxed")
aligned = wf.add(align, image=each(range(150), axis="subject"))
wf.add(smooth, image=aligned, width=each(range(1, 151), axis="width"))
