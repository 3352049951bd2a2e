"""``python -m hpcpipe.nipype.spm_check``: look at the SPM that tasks would run; start nothing.

`hpcpipe site doctor` runs it on a node, after the setup of the site's software.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hpcpipe.graph.command import CommandFailed
from hpcpipe.nipype.spmcall import find_engine


def check_spm(environment: Mapping[str, str]) -> str:
    """Describe the SPM that HPCPIPE_SPM names; raise CommandFailed if it cannot run."""
    engine = find_engine(environment)
    octave = environment.get("HPCPIPE_SPM", "").startswith("octave")
    program, *rest = ["octave-cli"] if octave else shlex.split(engine.command)
    if not shutil.which(program, path=environment.get("PATH")):
        raise CommandFailed(f"{program}: not found, or not executable")
    if engine.standalone:
        runtime = rest[0]
        if not os.path.isdir(runtime):
            raise CommandFailed(f"{runtime}: no MATLAB Runtime: no such folder")
        return f"standalone SPM: {program}, MATLAB Runtime: {runtime}"
    name, release = engine.version  # raises where the folder has no SPM
    if engine.folder and not any(Path(engine.folder).glob("*.mex" if octave else "*.mex?*")):
        kind = "Octave" if octave else "MATLAB"
        raise CommandFailed(f"{engine.folder}: {name} is not compiled for {kind}: no MEX files")
    return f"{name} {release}, run by {program}" if engine.folder else f"SPM on {program}'s path"


def main() -> None:
    """Print what was found; exit with 1 and the cause if SPM cannot run."""
    try:
        print(check_spm(os.environ))
    except CommandFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
