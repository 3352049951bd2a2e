#!/usr/bin/env -S python3 -S
"""Run the command that this file is called by: ``pbs/qsub`` is the function qsub of pbs.py."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    called = Path(sys.argv[0])
    command = getattr(import_module(f"standins.{called.parent.name}"), called.name)
    sys.exit(command(sys.argv[1:]))
