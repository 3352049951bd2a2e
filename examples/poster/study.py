"""The shape of the poster's study: an SPM workflow over 69 subjects, its time scaled.

Every step is a sleep of the step's minutes times ``MINUTE`` seconds (default: 4)::

    MINUTE=1 hpcpipe submit study.py

The poster gives two times: a subject's steps take 32 minutes in series, and 30 if those that can
run together do. Their distribution over the steps is ours.
"""

import os

from hpcpipe import Workflow, each

SUBJECTS = 69
MINUTE = float(os.environ.get("MINUTE", "4"))  # seconds

# By step: its minutes, and the steps whose images it uses.
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
    """Return the workflow: one node per step, one task per subject."""
    wf = Workflow("poster", base_dir="runs")
    labels = each([f"S{number:02}" for number in range(1, subjects + 1)], axis="subject")
    for name, (minutes, above) in STEPS.items():
        words = ["sh", "-c", f"sleep {minutes * MINUTE:g}", "{subject}"]
        wf.command(words, name=name, subject=labels, after=[wf.nodes[one] for one in above])
    return wf


wf = study()
