"""More than one array may hold: chunks, aligned chunk by chunk."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def smooth(image: int) -> int:
    """Stand for another."""
    return image


wf = Workflow("chunked")
aligned = wf.add(align, image=each(range(2500), axis="subject"))
wf.add(smooth, image=aligned)
