"""A program that is written to a file says nothing of the machine that traced it."""

import io

import numpy as np
import pytest
import torch

from tsfmc.compiler.ir.program import Shape, export_program


@pytest.mark.parametrize("batch", [None, 1])
def test_a_saved_program_names_no_source_file(batch):
    windows = np.random.default_rng(0).normal(size=(4, 2, 8)).astype(np.float32)
    program = export_program(torch.nn.Linear(8, 3).eval(), Shape(2, 8, 3), windows)
    written = io.BytesIO()
    torch.export.save(program.at(batch), written)
    assert b".py" not in written.getvalue()
