"""A second axis is added: one aligned array for each of its values."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def smooth(image: int, width: int) -> int:
    """Stand for another."""
    return image * width


wf = Workflow("split")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(smooth, image=aligned, width=each([4, 6, 8], axis="width"))
