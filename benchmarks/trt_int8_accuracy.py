"""What quantisation costs in accuracy: fp32, fp16, int8 and fp8 ONNX files on onnxruntime, ETTh1, H 96.

Trains both students without a teacher, writes the very files that the TensorRT target ships and reads
the test split once for each.  The gate: int8 costs less than 2 % test MSE for both students.

    python benchmarks/trt_int8_accuracy.py --data ../shared/data/ETTh1.csv.gz --out benchmarks/results/x.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tsfmc.compiler.base.progress import for_stderr
from tsfmc.compiler.data import Dataset, load_data
from tsfmc.compiler.ir.program import Shape, export_program
from tsfmc.compiler.learning.evaluate import Predict, evaluate, model_predictor, naive_scale
from tsfmc.compiler.learning.training import TrainingPlan, train
from tsfmc.compiler.students import build_student
from tsfmc.targets.onnx_graph.precision import to_fp16
from tsfmc.targets.onnx_graph.quantize import quantize
from tsfmc.targets.onnx_graph.translate import to_onnx
from tsfmc.targets.trt.vectors import open_session

LOOKBACK, HORIZON, GATE = 512, 96, 0.02
STUDENTS: dict[str, dict[str, Any]] = {"dlinear": {}, "itransformer": {}}
EPOCHS = {"dlinear": 10, "itransformer": 4}


class Supervised(nn.Module):
    """Mean squared error against the truth."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, past: Tensor, future: Tensor) -> dict[str, Tensor]:
        """The loss of one batch."""
        return {"loss": nn.functional.mse_loss(self.student(past), future)}


def trained(kind: str, data: Dataset, epochs: int, options: dict[str, Any]) -> nn.Module:
    """A student trained without a teacher, by paper B."""
    torch.manual_seed(0)
    student = build_student(kind, lookback=LOOKBACK, horizon=HORIZON, **options)
    windows, validation = (data.windows(part, LOOKBACK, HORIZON) for part in ("train", "val"))
    scale = naive_scale(data)
    with tempfile.TemporaryDirectory() as folder:
        train(
            Supervised(student),
            windows=len(windows),
            fetch=lambda indices: windows.batch(indices),
            validate=lambda: evaluate(model_predictor(student), validation, scale).mse,
            plan=TrainingPlan(epochs=epochs, learning_rate=1e-4, batch_size=32, patience=3),
            workspace=Path(folder),
            progress=for_stderr(),
            title=f"train {kind}",
        )
    return student.eval()


def file_predictor(path: Path) -> Predict:
    """Evaluates an ONNX file on onnxruntime."""
    run = open_session(path)

    def predict(indices: Sequence[int], past: Tensor) -> Tensor:
        return torch.from_numpy(run(past.numpy()))

    return predict


def rows(kind: str, data: Dataset, epochs: int, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Test accuracy and file size of every precision of one student."""
    student = trained(kind, data, epochs, options)
    windows = data.windows("train", LOOKBACK, HORIZON)
    calibration = windows.spread(256)
    test, scale = data.windows("test", LOOKBACK, HORIZON), naive_scale(data)
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        shape = Shape(len(data.variates), LOOKBACK, HORIZON)
        plain = to_onnx(export_program(student, shape, calibration))
        files = {
            "fp32": plain,
            "fp16": to_fp16(plain),
            "int8": quantize(plain, calibration, "int8"),
            "fp8": quantize(plain, calibration, "fp8"),
        }
        for precision, model in files.items():
            onnx.save(model, path)
            accuracy = evaluate(file_predictor(path), test, scale, title=f"{kind} {precision}")
            table[precision] = {**accuracy.to_dict(), "bytes": path.stat().st_size}
    for row in table.values():
        row["mse_increase"] = row["mse"] / table["fp32"]["mse"] - 1
    return table


def main() -> int:
    """Runs the benchmark; exit code 4 when the gate is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="ETTh1", help="a known name or a file")
    parser.add_argument("--width", type=int, default=512, help="width of the iTransformer")
    parser.add_argument("--epochs", type=int, help="epochs of both students (default: 10 and 4)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_data(options.data, lookback=LOOKBACK, horizon=HORIZON)
    students = {**STUDENTS, "itransformer": {"width": options.width, "ffn": 4 * options.width}}
    table = {
        kind: rows(kind, data, options.epochs or EPOCHS[kind], student) for kind, student in students.items()
    }
    record = {
        "data": str(data),
        "method": f"supervised students, L {LOOKBACK}, H {HORIZON}, iTransformer width {options.width}, "
        "Adam 1e-4, batch 32, patience 3, seed 0; onnxruntime CPU computing the Q/DQ graph as written; "
        "calibrated on 256 training windows; every test window",
        "gate": f"int8 mse_increase < {GATE}",
        "students": table,
    }
    text = json.dumps(record, indent=2) + "\n"
    if options.out is not None:
        options.out.write_text(text)
    print(text, end="")
    return 0 if all(row["int8"]["mse_increase"] < GATE for row in table.values()) else 4


if __name__ == "__main__":
    sys.exit(main())
