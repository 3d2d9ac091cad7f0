"""Progress bars for long passes over data."""

from tqdm import tqdm


def progress(what: str, total: int, unit: str = "B") -> tqdm:
    """A progress bar with speed and time left, shown only on a terminal and only after one second."""
    return tqdm(desc=what, total=total, unit=unit, unit_scale=True, delay=1, disable=None, leave=False)
