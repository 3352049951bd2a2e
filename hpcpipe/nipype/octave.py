"""Replace MATLAB by GNU Octave: ``python -m hpcpipe.nipype.octave -nodesktop -r "CODE"``.

Accepts the arguments with which nipype starts MATLAB, so that its SPM interfaces run on Octave
unchanged: ``MATLABCMD="python -m hpcpipe.nipype.octave"``. ``SPM_PATH``, or else the folder in
``HPCPIPE_SPM``, is added to Octave's path. Needs ``octave-cli`` and an SPM compiled for Octave.
"""

from __future__ import annotations

import os
import shlex
import sys

# Octave 7 lacks ismcc, by which nipype's scripts check whether they were compiled.
_BEFORE = """\
if (! exist ('ismcc')), eval ('function yes = ismcc (), yes = false; end'); end
if (! isempty (getenv ('SPM_PATH'))), addpath (getenv ('SPM_PATH')); end
"""


def octave_words(words: list[str]) -> list[str]:
    """Translate a MATLAB command line; raise ValueError if it has no code to run."""
    for option in ("-r", "-batch"):
        if option in words[:-1]:
            code = words[words.index(option) + 1]
            quiet = ("--quiet", "--no-init-file", "--no-history", "--no-window-system")
            return ["octave-cli", *quiet, "--eval", _BEFORE + code]
    raise ValueError(f"no -r CODE in: {' '.join(words)}")


def main() -> None:
    """Replace this process by Octave."""
    try:
        words = octave_words(sys.argv[1:])
        kind, _, folder = os.environ.get("HPCPIPE_SPM", "").partition(" ")
        if kind == "octave":
            os.environ.setdefault("SPM_PATH", "".join(shlex.split(folder)))
        os.execvp(words[0], words)
    except ValueError as error:
        sys.exit(f"hpcpipe.nipype.octave: {error}")
    except OSError as error:
        sys.exit(
            f"hpcpipe.nipype.octave: octave-cli: {error.strerror}; install GNU Octave, or load it"
        )


if __name__ == "__main__":
    main()
