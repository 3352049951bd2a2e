"""Memory and time as a person writes them (``"2G"``, ``"30m"``) and as hpcpipe counts them."""

from __future__ import annotations

import re

from hpcpipe.errors import ConfigError

# Compiled on use: every `hpcpipe status` imports this module and needs none of them.
_MEMORY = r"(?i)(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?"
_TIME_WORDS = r"(?i)(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?\s*(?:(\d+)\s*s)?"
_TIME_CLOCK = r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?"
_MIB = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024 * 1024}


def parse_memory(text: str | int) -> int:
    """Parse an amount of memory into MiB.

    Takes ``"2G"``, ``"500M"`` and an ``int`` of MiB. Raises ConfigError if the text is not an
    amount, is zero, or has no unit: ``--memory 4`` means 4 GB to most people, and 4 MB to Slurm.
    """
    if isinstance(text, str) and text.strip().isdecimal() and int(text):
        raise ConfigError(f"memory {text!r} has no unit; write {text.strip()}G or {text.strip()}M")
    match = re.fullmatch(_MEMORY, str(text).strip())
    mib = round(float(match[1]) * _MIB[match[2].upper()]) if match else 0
    if mib < 1:
        raise ConfigError(f"memory {text!r} is not an amount; write for example 500M, 2G or 1.5G")
    return mib


def parse_time(text: str | int) -> int:
    """Parse a duration into seconds.

    Takes ``"90s"``, ``"30m"``, ``"2h30m"``, ``"1d"``, ``"2:30:00"``, ``"2-00:00:00"``, ``"10:00"``
    (minutes and seconds, as Slurm reads it) and an ``int`` of seconds. A bare number in a string is
    refused, because schedulers disagree on whether it means minutes or seconds.
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
        raise ConfigError(f"time {text!r} is not a duration; write for example 30m or 2h30m")
    return seconds


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 task``, ``2 tasks``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_memory(mib: int) -> str:
    """Format MiB for people: ``4 GB``, ``1.5 GB``, ``300 MB``."""
    if mib < 1024:
        return f"{mib} MB"
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GB"


def format_bytes(count: int) -> str:
    """Format bytes for people: ``512 B``, ``3.4 KB``, ``1.5 GB``."""
    size, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def format_time(seconds: float) -> str:
    """Format seconds for people: ``4 s``, ``12 min``, ``1 h 20 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or whole == seconds else f"{seconds:.1f} s"
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min")]
    if whole < 600:
        parts.append((whole % 60, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
