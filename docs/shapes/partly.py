"""Each width takes all its subjects: one upstream array per width."""

from hpcpipe import Workflow, each


def smooth(image: int, width: int) -> int:
    """Do a first step."""
    return image * width


def average(images: list[int]) -> float:
    """Do a second step."""
    return sum(images) / len(images)


wf = Workflow("partly")
subjects, widths = each(range(100), axis="subject"), each([4, 6, 8], axis="width")
smoothed = wf.add(smooth, image=subjects, width=widths)
wf.add(average, images=smoothed.gather("subject"))
