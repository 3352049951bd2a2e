"""All tasks take one value."""

from hpcpipe import Workflow, each


def template() -> int:
    """Do a first step."""
    return 1


def align(image: int, template: int) -> int:
    """Do a second step."""
    return image + template


wf = Workflow("fanout")
wf.add(align, image=each(range(100), axis="subject"), template=wf.add(template))
