"""The embedded sample: ``sample.csv``, with its origin and licence in ``ORIGIN.md``."""
