"""Derive seeds for random generators: the same parts give the same seed, in any process and on any machine."""

import hashlib


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and their order, e.g. `seed_for(seed, "dropout", step)`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
