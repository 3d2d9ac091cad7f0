"""Randomness with an address: the same parts always give the same seed, in any process and on any machine."""

import hashlib


def seed_for(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part and on their order, such as (seed, "dropout", step)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
