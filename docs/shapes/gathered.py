"""One task takes all."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def average(images: list[int]) -> float:
    """Stand for another."""
    return sum(images) / len(images)


wf = Workflow("gathered")
aligned = wf.add(align, image=each(range(100), axis="subject"))
wf.add(average, images=aligned.gather())
