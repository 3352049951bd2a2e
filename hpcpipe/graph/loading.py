"""Whether a workflow file is only being read, so that nothing in it may submit or run."""

from __future__ import annotations

import os
import sys
from typing import Any

loading: list[str] = []  # modules whose files are being executed
reached: list[Reached] = []  # where they would have run their workflows


class Reached(BaseException):
    """Raised to stop reading a file at the point where it would run its workflow."""

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self.workflow = workflow


def user_folder() -> str:
    """Return the folder of the workflow file that is being read, or else of the program."""
    module = sys.modules.get(loading[-1] if loading else "__main__")
    return os.path.dirname(os.path.abspath(getattr(module, "__file__", None) or "program"))


def stop_reading(workflow: Any) -> None:
    """Raise Reached if a workflow file is being read, which must not run its workflow."""
    if loading:
        reached.append(Reached(workflow))
        raise reached[-1]
