"""The repository root is the package ``tsfmc``; its sub-packages are the folders with an ``__init__.py``.

Everything else about the build stands in pyproject.toml.
"""

from setuptools import find_packages, setup

HOUSE = ("compiler", "passes", "targets")
folders = find_packages(include=[pattern for top in HOUSE for pattern in (top, f"{top}.*")])

setup(
    packages=["tsfmc", *(f"tsfmc.{folder}" for folder in folders)],
    package_dir={"tsfmc": "."},
)
