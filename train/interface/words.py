"""Quantities in words, for people."""

__all__ = ["duration_words"]


def duration_words(seconds: float) -> str:
    """Seconds up to a minute and a half, then minutes, then hours: "45 s", "12 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
