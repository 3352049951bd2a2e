"""All take the one."""

from hpcpipe import Workflow, each


def template() -> int:
    """Stand for a step."""
    return 1


def align(image: int, template: int) -> int:
    """Stand for another."""
    return image + template


wf = Workflow("fanout")
wf.add(align, image=each(range(100), axis="subject"), template=wf.add(template))
