"""Each task takes one: elementwise."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def smooth(image: int) -> int:
    """Do a second step."""
    return image


wf = Workflow("aligned")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(smooth, image=aligned)
