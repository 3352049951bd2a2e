"""Two ways meet again: elementwise on both."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def segment(image: int) -> int:
    """Stand for a second."""
    return image


def smooth(image: int) -> int:
    """Stand for a third."""
    return image


def measure(segments: int, smoothed: int) -> int:
    """Stand for the last."""
    return segments + smoothed


wf = Workflow("diamond")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(measure, segments=wf.add(segment, image=aligned), smoothed=wf.add(smooth, image=aligned))
