"""TTM (Tiny Time Mixers)."""
