"""More tasks than an array may have: chunks, aligned chunk by chunk."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def smooth(image: int) -> int:
    """Do a second step."""
    return image


wf = Workflow("chunked")
aligned = wf.add(align, image=each(range(2500), axis="subject"))
wf.add(smooth, image=aligned)
