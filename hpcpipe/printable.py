"""One line of text that others wrote, without what a terminal would obey."""

from __future__ import annotations

# Escape sequences: CSI (colours, cursor), OSC (titles, links), other strings, and the short ones.
_ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]"
)


def printable(line: str) -> str:
    """Return one line without escape sequences, with other control characters spelled out.

    Of a line that a progress bar has overwritten, only what was written last.
    """
    if line.isprintable():
        return line
    import re  # only here: it is slow to load, and most lines need none of this

    line = re.sub(_ESCAPES, "", line.rstrip("\r").rpartition("\r")[2])
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
