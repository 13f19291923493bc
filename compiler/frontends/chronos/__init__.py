"""Chronos-Bolt and Chronos-2."""
