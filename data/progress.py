"""How far something has come that passes over many bytes."""

from tqdm import tqdm


def progress(what: str, total: int, unit: str = "B") -> tqdm:
    """A bar with speed and time left: on a terminal only, and only for what takes longer than a second."""
    return tqdm(desc=what, total=total, unit=unit, unit_scale=True, delay=1, disable=None, leave=False)
