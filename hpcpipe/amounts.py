"""Memory and time as a person writes them (``"2G"``, ``"30m"``) and as hpcpipe counts them."""

from __future__ import annotations

import re

from hpcpipe.errors import ConfigError

# Compiled when they are used: every `hpcpipe status` comes past here, and uses none of them.
_MEMORY = r"(?i)(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?"
_TIME_WORDS = r"(?i)(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?\s*(?:(\d+)\s*s)?"
_TIME_CLOCK = r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?"
_MIB = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024 * 1024}


def parse_memory(text: str | int) -> int:
    """Read an amount of memory (``"2G"``, ``"500M"``, a bare number of MiB) as MiB.

    Raises ConfigError where the text is no amount, or is zero.
    """
    match = re.fullmatch(_MEMORY, str(text).strip())
    mib = round(float(match[1]) * _MIB[match[2].upper()]) if match else 0
    if mib < 1:
        raise ConfigError(f"memory {text!r} is not an amount; write for example 500M, 2G or 1.5G")
    return mib


def parse_time(text: str | int) -> int:
    """Read a length of time as seconds.

    Takes ``"90s"``, ``"30m"``, ``"2h30m"``, ``"1d"``, ``"2:30:00"``, ``"2-00:00:00"``, ``"10:00"``
    (minutes and seconds, as Slurm reads it) and a bare ``int`` of seconds. A bare number in a
    string is refused, since schedulers disagree whether it means minutes or seconds.
    """
    if isinstance(text, int) and text > 0:
        return text
    words = str(text).strip()
    if clock := re.fullmatch(_TIME_CLOCK, words):
        days, first, second, third = clock.groups()
        if third is None and days is None:
            seconds = int(first) * 60 + int(second)
        else:
            seconds = int(first) * 3600 + int(second) * 60 + int(third or 0)
        seconds += int(days or 0) * 86400
    else:
        named = re.fullmatch(_TIME_WORDS, words)
        d, h, m, s = (int(part or 0) for part in named.groups()) if named else (0, 0, 0, 0)
        seconds = d * 86400 + h * 3600 + m * 60 + s
    if seconds < 1:
        raise ConfigError(f"time {text!r} is not a length of time; write for example 30m or 2h30m")
    return seconds


def format_memory(mib: int) -> str:
    """Write MiB as a person would: ``4 GB``, ``1.5 GB``, ``300 MB``."""
    if mib < 1024:
        return f"{mib} MB"
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GB"


def format_time(seconds: float) -> str:
    """Write seconds as a person would: ``4 s``, ``12 min``, ``1 h 20 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or whole == seconds else f"{seconds:.1f} s"
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min")]
    if whole < 600:
        parts.append((whole % 60, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
