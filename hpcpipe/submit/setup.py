"""Setup lines of a site: each is checked, so that no task runs without what it was to load."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

_OPENS = re.compile(r"(if|for|while|until|case|select|\{|\()(\s|$)|[\w-]+\s*\(\)")
_CLOSES = re.compile(r"(fi|done|esac|\}|\))(\s|;|$)")
_CLOSED = re.compile(r"[\s;](fi|done|esac|\}|\))\s*;?$")
_COMMENT = re.compile(r"(^|\s)#.*")
_GOES_ON = re.compile(r"(\\|&&|\|\|?)$")
# A condition that does not hold, and a login file whose last line is one, are no failures.
_MAY_FAIL = re.compile(r"(\[|test\b|(\.|source)\s+/etc/)")


def checked(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines of sh, and after each simple command a check of its exit code.

    Compound commands over several lines stay as they are, and all that follows a here-document.
    """
    depth, whole, heredoc = 0, "", False
    for line in lines:
        yield line
        text = whole = f"{whole} {_COMMENT.sub('', line).strip()}".strip()
        heredoc = heredoc or "<<" in text
        if _GOES_ON.search(text):
            whole = text.removesuffix("\\").strip()
            continue
        whole = ""
        opens = _OPENS.match(text)
        if opens and not _CLOSED.search(text):
            depth += 1
        elif depth and _CLOSES.match(text):
            depth -= 1
        elif text and not (depth or heredoc or opens or _MAY_FAIL.match(text)):
            yield f"set_up $? {shlex.quote(text)}"
