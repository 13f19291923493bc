"""Packages: an artifact in the layout that a platform already understands."""

from ...compiler.base.registry import Registry

LAYOUTS = Registry(
    "layout",
    {
        "tsfmc": "targets.packages.single_file:SingleFile",
        "triton": "targets.packages.triton:Triton",
        "kserve": "targets.packages.kserve:KServe",
        "mlflow": "targets.packages.mlflow:MlflowModel",
        "bench": "targets.packages.device_bench:DeviceBench",
        "hf": "targets.packages.hugging_face:HuggingFace",
        "oci": "targets.packages.oci:Oci",
        "edge-impulse": "targets.packages.edge_impulse:EdgeImpulse",
        "web": "targets.packages.web:Web",
    },
    contract="targets.packages.layout:Layout",
)
"""Name -> :class:`~tsfmc.targets.packages.layout.Layout`; plugins join through ``tsfmc.layouts``."""
