"""Each task takes one: elementwise."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def smooth(image: int) -> int:
    """Stand for another."""
    return image


wf = Workflow("aligned")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(smooth, image=aligned)
