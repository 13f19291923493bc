#!/usr/bin/env python3
"""Builds model.engine from model.onnx on this device, with TensorRT 10.3 to 11.4 or TensorRT-RTX.

Needs the standard library and TensorRT alone.  stdout is a line of JSON for each level reached, the last
one tells how it ended; messages go to stderr.
Exit codes: 0 built, 2 TensorRT refuses the model, 3 TensorRT or the device is missing or is another
version, 5 the files do not belong together.

    python3 build_engine.py                                  on the device
    python3 build_engine.py --compute-capability SM86,SM89   TensorRT-RTX: for GPUs that are not here
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # an artifact holds the listed files and no other

from trt_engine import (  # type: ignore[import-not-found]  # noqa: E402
    LIBRARIES,
    PLAN,
    SPEC,
    Cuda,
    DeviceError,
    load_tensorrt,
)

OLDEST, NEWEST = (10, 3), (11, 4)

HINTS = (
    (r"HW-specific datatypes: (\w+)", "this GPU has no {0}: compile with another precision"),
    (
        r"(?:FP32|FLOAT) GEMM is not supported",
        "TensorRT-RTX has no fp32 matrix product for this GPU: use fp16",
    ),
    (
        r"must have same input types|same input type",
        "the types of one node's inputs differ: cast one of them",
    ),
    (r"Plugin not found|No importer", "TensorRT has no such operator: replace it in the model"),
    (r"In function check\w+", "TensorRT does not take this operator or this form of it: replace it"),
    (r"must match|dimension", "the shapes of one node's inputs do not fit: export the model again"),
    (r"Failed to parse the ONNX|DESERIALIZE_FAILED", "model.onnx is damaged: copy it again"),
)


class Refused(Exception):
    """TensorRT does not take this model; ``stage`` is what it did not get past."""

    def __init__(self, stage: str, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.stage, self.errors = stage, errors


def hint(text: str) -> str:
    """What to do about an error of TensorRT's, or nothing."""
    for pattern, advice in HINTS:
        found = re.search(pattern, text)
        if found:
            return advice.format(*found.groups())
    return "see TensorRT's message"


def check_version(trt: Any, library: str) -> None:
    """Refuses versions of TensorRT on which nobody has tried these files."""
    if library != "tensorrt":
        return
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if not OLDEST <= version <= NEWEST:
        raise DeviceError(
            f"TensorRT {trt.__version__} is here, these files are made for {OLDEST[0]}.{OLDEST[1]} to"
            f" {NEWEST[0]}.{NEWEST[1]}; install such a version, or try with --any-version"
        )


def make_logger(trt: Any, errors: list[str]) -> Any:
    """A logger that keeps errors apart from the search for a GPU that TensorRT-RTX always logs."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message.strip())
                print(f"tensorrt: {message.strip()}", file=sys.stderr)

    return Log()


def parse(trt: Any, builder: Any, logger: Any, onnx: Path) -> tuple[Any, Any]:
    """The network in ``onnx`` and the parser, whose weights it borrows; types are those of the graph."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise Refused("parse", [describe(parser.get_error(i)) for i in range(parser.num_errors)])
    return network, parser


def describe(error: Any) -> str:
    """One line: node, operator, what is wrong, what to do."""
    lines = [line for line in error.desc().splitlines() if "cudaError 35" not in line]
    text = " ".join(lines)
    place = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
    return f"{place}{text} -> {hint(f'{text} In function {error.func()}')}"


def configure(trt: Any, builder: Any, spec: dict[str, Any], options: argparse.Namespace) -> Any:
    """The build configuration: one profile, TF32 off unless asked for, named compute capabilities."""
    config = builder.create_builder_config()
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    batch, shape = spec["batch"], spec["input"]["shape"]
    if batch["min"] != batch["max"]:
        profile = builder.create_optimization_profile()
        profile.set_shape(spec["input"]["name"], *((batch[key], *shape) for key in ("min", "opt", "max")))
        config.add_optimization_profile(profile)
    names = options.compute_capability
    if names:
        config.num_compute_capabilities = len(names)
        for i, name in enumerate(names):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), i)
    return config


def check_capabilities(trt: Any, library: str, names: list[str]) -> None:
    """TensorRT builds for the GPU it sees; TensorRT-RTX for named ones, and its default hides errors."""
    if library == "tensorrt" and names:
        raise DeviceError("TensorRT builds for the GPU it runs on; --compute-capability is for TensorRT-RTX")
    if library == "tensorrt_rtx" and not names:
        raise DeviceError(
            "TensorRT-RTX needs --compute-capability, e.g. SM89, or CURRENT for the GPU of this machine"
        )
    known = (
        [name for name in dir(trt.ComputeCapability) if re.fullmatch(r"SM\d+|CURRENT", name)] if names else []
    )
    for name in names:
        if name not in known:
            raise DeviceError(
                f"{library} {trt.__version__} does not know {name}; it knows {', '.join(known)}"
            )


def gpu() -> dict[str, Any] | None:
    """The GPU of this machine, or None."""
    try:
        described: dict[str, Any] = Cuda().describe()
        return described
    except DeviceError:
        return None


def build(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Parses, builds and writes the plan; the returned record is written beside it."""
    spec = json.loads((directory / SPEC).read_text())
    onnx = directory / "model.onnx"
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    if digest != spec["onnx_sha256"]:
        raise ValueError(f"{onnx} has sha256 {digest}, {SPEC} says {spec['onnx_sha256']}; copy both again")
    trt, library = load_tensorrt(LIBRARIES if options.library is None else (options.library,))
    if not options.any_version:
        check_version(trt, library)
    names: list[str] = options.compute_capability
    device = gpu()
    if not options.parse_only:
        check_capabilities(trt, library, names)
    if device is None and not options.parse_only and (not names or "CURRENT" in names):
        raise DeviceError("no NVIDIA GPU is visible; run this on the device")
    started = time.perf_counter()
    errors: list[str] = []
    logger = make_logger(trt, errors)
    builder = trt.Builder(logger)
    network, parser = parse(trt, builder, logger, onnx)
    record: dict[str, Any] = {
        "level": "parsed",
        "built_with": f"{library} {trt.__version__}",
        "onnx_sha256": digest,
    }
    if options.parse_only:
        return record
    print(json.dumps(record), flush=True)  # so that a crash in the builder still leaves this on record
    errors.clear()
    plan = builder.build_serialized_network(network, configure(trt, builder, spec, options))
    if plan is None:
        lines = [f"{line} -> {hint(line)}" for line in errors if "cudaError 35" not in line]
        raise Refused("build", lines or ["TensorRT gave no reason"])
    content = bytes(plan)
    del parser
    here = device["compute_capability"] if device else ""
    record |= {
        "level": "built",
        "compute_capabilities": [here if name == "CURRENT" else name for name in names],
        "gpu": device,
        "tf32": options.tf32,
        "plan_bytes": len(content),
        "plan_sha256": hashlib.sha256(content).hexdigest(),
    }
    out = options.out or directory
    (out / PLAN).write_bytes(content)
    (out / f"{PLAN}.json").write_text(json.dumps(record, indent=2) + "\n")
    return record | {"seconds": round(time.perf_counter() - started, 3)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--compute-capability", default=[], type=lambda text: text.split(","), metavar="SM86,.."
    )
    parser.add_argument("--out", type=Path, help="folder for the plan (default: beside this file)")
    parser.add_argument("--parse-only", action="store_true", help="stop after parsing")
    parser.add_argument("--library", choices=LIBRARIES, help="use this TensorRT (default: the first found)")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in fp32 products: faster, less exact")
    parser.add_argument("--any-version", action="store_true", help="try TensorRT versions that nobody tried")
    options = parser.parse_args(arguments)
    try:
        record = build(Path(__file__).resolve().parent, options)
    except Refused as refusal:
        print(json.dumps({"level": f"refused_at_{refusal.stage}", "errors": refusal.errors}))
        print(f"TensorRT refuses the model at {refusal.stage}: {refusal}", file=sys.stderr)
        return 2
    except DeviceError as error:
        print(json.dumps({"level": "missing", "errors": [str(error)]}))
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError, KeyError) as error:
        print(json.dumps({"level": "files", "errors": [str(error)]}))
        print(f"the files do not belong together: {error}", file=sys.stderr)
        return 5
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
