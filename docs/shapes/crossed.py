"""Each image with each atlas: elementwise on the one, one element of the other."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Stand for a step."""
    return image


def prepare(atlas: int) -> int:
    """Stand for a second."""
    return atlas


def label(image: int, atlas: int) -> int:
    """Stand for the last."""
    return image + atlas


wf = Workflow("crossed")
aligned = wf.add(align, image=each(range(100), axis="subject"))
prepared = wf.add(prepare, atlas=each(range(3), axis="atlas"))
wf.add(label, image=aligned, atlas=prepared)
