"""A second axis is added: one aligned array per value."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def smooth(image: int, width: int) -> int:
    """Do a second step."""
    return image * width


wf = Workflow("split")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(smooth, image=aligned, width=each([4, 6, 8], axis="width"))
