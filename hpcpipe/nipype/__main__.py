"""``python -m hpcpipe.nipype PROGRAM …``: a program that only takes a plugin's name finds ours."""

from __future__ import annotations

import runpy
import shutil
import sys

from hpcpipe.errors import UsageError
from hpcpipe.nipype.plugin import register


def main() -> None:
    """Run a program written in Python with its own arguments, the plugin's name being known."""
    if len(sys.argv) < 2:
        raise UsageError("name a program: python -m hpcpipe.nipype fmriprep …")
    program = sys.argv[1]
    path = program if "/" in program or program.endswith(".py") else shutil.which(program)
    if path is None:
        raise UsageError(f"{program}: no such program on PATH")
    register()
    del sys.argv[0]
    sys.argv[0] = path
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
