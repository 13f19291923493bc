"""Everything that this package adds keeps tsfmc's contracts."""

from tsfmc.compiler import contracts
from tsfmc_sample_plugin.cycle import PUBLISHED


def test_teacher() -> None:
    contracts.check_teacher("cycle", PUBLISHED)
    contracts.check_teacher("cycle")  # as it comes with the package


def test_student() -> None:
    contracts.check_student("last_value")
    contracts.check_student("last_value", bias=False)


def test_pass() -> None:
    contracts.check_pass("round_weights", before=["build_student"])


def test_target() -> None:
    contracts.check_target("matrix")
