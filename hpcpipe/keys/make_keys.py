"""Keys from digests: of what all tasks of a node share, of where each is, of what is upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from hpcpipe.graph.axes import Edge
from hpcpipe.keys.file_digest import SIZE
from hpcpipe.store.plan import NodeRecord


def make_keys(
    shared: bytes,
    places: Sequence[bytes],
    sweep: int,
    edges: Sequence[Edge],
    upstream: Mapping[str, NodeRecord],
) -> bytes:
    """Return the keys of a node's tasks, each of which adds the bytes of its place."""
    start = blake2b(shared, digest_size=SIZE)
    if sweep:
        start.update(str(sweep).encode())
    parents = [(edge, upstream[edge.upstream].keys) for edge in edges]
    keys = bytearray()
    for index, place in enumerate(places):
        state = start.copy()
        state.update(place)
        for edge, above in parents:
            for parent in edge.parents(index):
                state.update(above[parent * SIZE : parent * SIZE + SIZE])
        keys += state.digest()
    return bytes(keys)


def places_of(columns: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """Return what each task's place adds to its key, of what places on each axis do."""
    joined: Sequence[bytes] = [b""]
    for column in columns:
        joined = [before + here for before in joined for here in column]
    return joined
