"""The shape of the poster's study: an SPM workflow over 69 subjects, its time scaled.

Every step is a sleep, as long as the step takes in minutes times ``MINUTE`` seconds (default: 4)::

    MINUTE=1 hpcpipe submit study.py

Of its times the poster prints two: a subject's steps take 32 minutes in series, and 30 where those
run together that can. How they are shared out over the steps is ours.
"""

import os

from hpcpipe import Workflow, each

SUBJECTS = 69
MINUTE = float(os.environ.get("MINUTE", "4"))  # seconds

# By step: its minutes, and the steps whose images it takes.
STEPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "realign": (6, ()),
    "segment": (2, ()),
    "coregister": (2, ("realign",)),
    "normalize": (4, ("coregister", "segment")),
    "smooth": (3, ("normalize",)),
    "design": (1, ("smooth",)),
    "estimate": (12, ("design",)),
    "contrasts": (2, ("estimate",)),
}


def study(subjects: int = SUBJECTS) -> Workflow:
    """Make the workflow: a node a step, a task of it a subject."""
    wf = Workflow("poster", base_dir="runs")
    labels = each([f"S{number:02}" for number in range(1, subjects + 1)], axis="subject")
    for name, (minutes, above) in STEPS.items():
        words = ["sh", "-c", f"sleep {minutes * MINUTE:g}", "{subject}"]
        wf.command(words, name=name, subject=labels, after=[wf.nodes[one] for one in above])
    return wf


wf = study()
