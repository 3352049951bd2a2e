"""One task takes all values."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def average(images: list[int]) -> float:
    """Do a second step."""
    return sum(images) / len(images)


wf = Workflow("gathered")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(average, images=aligned.gather())
