"""Each width takes all its subjects: one array above for each width."""

from hpcpipe import Workflow, each


def smooth(image: int, width: int) -> int:
    """Stand for a step."""
    return image * width


def average(images: list[int]) -> float:
    """Stand for another."""
    return sum(images) / len(images)


wf = Workflow("partly")
subjects, widths = each(range(100), axis="subject"), each([4, 6, 8], axis="width")
smoothed = wf.add(smooth, image=subjects, width=widths)
wf.add(average, images=smoothed.gather("subject"))
