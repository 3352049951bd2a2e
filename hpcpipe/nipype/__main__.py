"""``python -m hpcpipe.nipype PROGRAM …``: run a program that selects plugins by name with ours."""

from __future__ import annotations

import runpy
import shutil
import sys

from hpcpipe.errors import UsageError
from hpcpipe.nipype.plugin import register


def main() -> None:
    """Run a Python program with its own arguments, after registering the plugin's name."""
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
