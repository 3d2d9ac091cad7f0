"""Human-readable durations. Does not import torch."""

YEAR = 365 * 86_400
UNITS = ((90, 1, "s"), (5_400, 60, "min"), (2 * 86_400, 3_600, "h"), (2 * YEAR, 86_400, "days"))  # below, length, name


def duration(seconds: float) -> str:
    """Seconds as "89 s", "12 min", "3.5 h", "40 days", "1,000 years"."""
    for limit, size, name in UNITS:
        if seconds < limit:
            return f"{seconds / size:.{int(name == 'h')}f} {name}"
    return f"{seconds / YEAR:,.0f} years"
