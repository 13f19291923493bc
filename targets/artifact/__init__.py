"""The artifact: a directory (or a ``.tsfmc`` file of it) that a device can run and verify by itself.

    manifest.json     what it is, where it comes from, what was measured; written after everything it lists
    SHA256SUMS        sha256 of every other file, as ``sha256sum -c`` reads it
    run.py            the runner, one file, pasted together from ``device/`` and the target's engine
    selftest/*.npy    a few windows and the original PyTorch model's forecasts, units of the data, float64
    recipe.lock.toml  the recipe, where the driver wrote one
    the payload       whatever the target lowered to

Invariants, each with its reason: nothing is pickled (loading must not execute anything); no links and no
names that leave the directory (unpacking must not write elsewhere); a zip stores and never compresses (no
file can unpack to more than it is); JSON has sorted keys and no NaN (equal compiles give equal bytes).
"""
