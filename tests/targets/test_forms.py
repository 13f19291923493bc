"""The teacher's forms: each computes what the model does, and one that cannot run says why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import make_model, make_windows
from torch import Tensor, nn

from tsfmc.compiler.base.errors import LoweringError
from tsfmc.targets import forms
from tsfmc.targets.forms import FORMS, Model, Skipped, prepare
from tsfmc.targets.measure.latency import Candidate

WINDOWS = make_windows()


@pytest.mark.parametrize("form", ["eager", "onnx"])
def test_a_form_computes_what_the_model_does(form: str) -> None:
    model = make_model()
    candidate = prepare(form, Model(model, WINDOWS), 1)
    assert isinstance(candidate, Candidate) and candidate.form and not candidate.waits
    with torch.no_grad():
        expected = model(torch.from_numpy(WINDOWS[5:6])).numpy()
    np.testing.assert_allclose(candidate.call(WINDOWS[5:6]), expected, rtol=1e-4, atol=1e-4)


class OneWindow(nn.Module):
    """Bakes its batch in: it has no symbolic one."""

    def forward(self, past: Tensor) -> Tensor:
        return past.reshape(past.shape[0], 3, 32)[..., :8] * (2.0 if int(past.shape[0]) == 1 else 3.0)


class Branches(nn.Module):
    def forward(self, past: Tensor) -> Tensor:
        return past[..., :8] if past.sum() > 0 else -past[..., :8]


def test_a_model_without_a_symbolic_batch_is_exported_for_one_window() -> None:
    candidate = prepare("onnx", Model(OneWindow(), WINDOWS), 1)
    assert isinstance(candidate, Candidate)
    np.testing.assert_allclose(candidate.call(WINDOWS[:1]), 2 * WINDOWS[:1, :, :8], rtol=1e-6)


def test_a_model_that_cannot_be_exported_says_so_and_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    whole = forms._onnx_file
    monkeypatch.setattr(forms, "_onnx_file", lambda *given: tried.append(1) or whole(*given))
    model = Model(Branches(), WINDOWS)
    for _ in range(2):
        skipped = prepare("onnx", model, 1)
        assert isinstance(skipped, Skipped) and "Branches cannot be exported" in skipped.reason
    assert len(tried) == 1


def test_a_form_that_computes_something_else_is_no_form(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Candidate(lambda past: np.zeros((1, 3, 8), dtype=np.float32))
    monkeypatch.setitem(FORMS, "onnx", lambda model, threads: wrong)  # type: ignore[arg-type]
    skipped = prepare("onnx", Model(make_model(), WINDOWS), 1)
    assert isinstance(skipped, Skipped) and "forecasts differ" in skipped.reason


def test_torch_compile_is_held_to_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(model: Any, compiled: bool = False) -> Any:
        def call(past: np.ndarray) -> np.ndarray:
            try:
                while compiled:
                    time.sleep(0.01)
            except Exception:  # a compiler that catches what it can
                return past
            return past

        return call

    monkeypatch.setattr(forms, "COMPILE_LIMIT_S", 0.2)
    monkeypatch.setattr(forms, "torch_candidate", slow)
    began = time.monotonic()
    skipped = prepare("compiled", Model(make_model(), WINDOWS), 1)
    assert isinstance(skipped, Skipped) and "not done after 0 s" in skipped.reason
    assert time.monotonic() - began < 5


def test_torch_compile_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any, compiled: bool = False) -> Any:
        def call(past: np.ndarray) -> np.ndarray:
            raise RuntimeError("no C++ compiler\nand a long trace")

        return call

    monkeypatch.setattr(forms, "torch_candidate", broken)
    skipped = prepare("compiled", Model(make_model(), WINDOWS), 1)
    assert (
        isinstance(skipped, Skipped) and skipped.reason == "torch.compile does not take it: no C++ compiler"
    )


def test_threads_are_those_asked_for_and_as_before() -> None:
    before, seen = torch.get_num_threads(), []

    class Looks(nn.Module):
        def forward(self, past: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return past[..., :8]

    prepare("eager", Model(Looks(), WINDOWS), before + 1)
    assert set(seen) == {before + 1} and torch.get_num_threads() == before


def test_an_operator_without_onnx_form_is_an_error_for_who_needs_the_file() -> None:
    with pytest.raises(LoweringError, match="cannot be exported"):
        Model(Branches(), WINDOWS).onnx_file()


def test_torch_compile_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, into an empty cache: its code is generated, compiled and called."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    model = make_model()
    candidate = prepare("compiled", Model(model, WINDOWS), 1)
    assert isinstance(candidate, Candidate) and candidate.form is not None
    assert candidate.form.startswith("fp32, torch.compile")
    with torch.no_grad():
        expected = model(torch.from_numpy(WINDOWS[:1])).numpy()
    np.testing.assert_allclose(candidate.call(WINDOWS[:1]), expected, rtol=1e-4, atol=1e-5)
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
