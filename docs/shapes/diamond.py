"""Two branches join: elementwise on both."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def segment(image: int) -> int:
    """Do a second step."""
    return image


def smooth(image: int) -> int:
    """Do a third step."""
    return image


def measure(segments: int, smoothed: int) -> int:
    """Do the last step."""
    return segments + smoothed


wf = Workflow("diamond")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(measure, segments=wf.add(segment, image=aligned), smoothed=wf.add(smooth, image=aligned))
