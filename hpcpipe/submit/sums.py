"""Checksums of what a job reads, which its script compares.

Each element of an array reads the whole task file, so that its cost matters: ``b2sum`` takes half
the time of ``sha256sum``. Not every node has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256


@dataclass(frozen=True)
class Sums:
    """The digests of one content, in hexadecimal."""

    blake2b: str
    sha256: str


def sum_up(pieces: Iterable[bytes]) -> Sums:
    """Return the digests of a content that comes in pieces."""
    digests = blake2b(digest_size=32), sha256()  # of equal length, which b2sum sees by itself
    for piece in pieces:
        for digest in digests:
            digest.update(piece)
    return Sums(*(digest.hexdigest() for digest in digests))
