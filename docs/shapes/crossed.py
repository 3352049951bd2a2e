"""Each image with each atlas: elementwise on one, a single element of the other."""

from hpcpipe import Workflow, each


def align(image: int) -> int:
    """Do a first step."""
    return image


def prepare(atlas: int) -> int:
    """Do a second step."""
    return atlas


def label(image: int, atlas: int) -> int:
    """Do the last step."""
    return image + atlas


wf = Workflow("crossed")
aligned = wf.add(align, image=each(range(100), axis="subject"))
prepared = wf.add(prepare, atlas=each(range(3), axis="atlas"))
wf.add(label, image=aligned, atlas=prepared)
