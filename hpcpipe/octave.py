"""Stands in for MATLAB with GNU Octave: ``python -m hpcpipe.octave -nodesktop -r "CODE"``.

Takes the words that nipype starts MATLAB with, so that its interfaces of SPM run on Octave as they
are: ``MATLABCMD="python -m hpcpipe.octave"``. ``SPM_PATH`` is put on Octave's path. Needs
``octave-cli`` and an SPM that was compiled for Octave.
"""

from __future__ import annotations

import os
import sys

# Octave 7 has no ismcc; the scripts of nipype ask it whether they were compiled.
_BEFORE = """\
if (! exist ('ismcc')), eval ('function yes = ismcc (), yes = false; end'); end
if (! isempty (getenv ('SPM_PATH'))), addpath (getenv ('SPM_PATH')); end
"""


def octave_words(words: list[str]) -> list[str]:
    """Translate a command line of MATLAB; raises ValueError where it has no code to run."""
    for option in ("-r", "-batch"):
        if option in words[:-1]:
            code = words[words.index(option) + 1]
            quiet = ("--quiet", "--no-init-file", "--no-history", "--no-window-system")
            return ["octave-cli", *quiet, "--eval", _BEFORE + code]
    raise ValueError(f"no -r CODE in: {' '.join(words)}")


def main() -> None:
    """Become Octave."""
    try:
        words = octave_words(sys.argv[1:])
        os.execvp(words[0], words)
    except ValueError as error:
        sys.exit(f"hpcpipe.octave: {error}")
    except OSError as error:
        sys.exit(f"hpcpipe.octave: octave-cli: {error.strerror}; install GNU Octave, or load it")


if __name__ == "__main__":
    main()
