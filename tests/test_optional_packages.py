"""What is optional is optional: whoever lacks a runtime can still name everything that is built in."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = ("tvm", "tvm_ffi", "ray", "tensorrt", "torch_tensorrt", "mlflow", "openpyxl", "polars")
SCRIPT = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from tsfmc.compiler.frontends import FRONTENDS
from tsfmc.compiler.students import STUDENTS
from tsfmc.passes import PASSES
from tsfmc.targets import TARGETS
from tsfmc.targets.packages import LAYOUTS
for registry in (FRONTENDS, STUDENTS, PASSES, TARGETS, LAYOUTS):
    for name in registry:
        registry[name]
from tsfmc.compiler.cli import main
sys.argv = ["tsfmc", "doctor"]
main()
"""


def test_everything_built_in_loads_without_what_is_optional() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tvm" in done.stdout + done.stderr
