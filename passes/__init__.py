"""Passes: one transformation a file, named verb_object.  The pipeline of a recipe lists them in order."""

from ..compiler.base.registry import Registry

PASSES = Registry(
    "pass",
    {
        "drop_dead_weights": "passes.drop_dead_weights:DropDeadWeights",
        "drop_rare_experts": "passes.drop_rare_experts:DropRareExperts",
        "prune_channels": "passes.prune_channels:PruneChannels",
        "finetune": "passes.finetune:Finetune",
        "record_teacher": "passes.record_teacher:RecordTeacher",
        "build_student": "passes.build_student:BuildStudent",
        "weight_horizons": "passes.weight_horizons:WeightHorizons",
        "align_temporal": "passes.align_temporal:AlignTemporal",
        "gather_statistics": "passes.gather_statistics:GatherStatistics",
        "add_prior": "passes.add_prior:AddPrior",
        "solve_affine": "passes.solve_affine:SolveAffine",
        "solve_fleet": "passes.solve_fleet:SolveFleet",
        "add_inputs": "passes.add_inputs:AddInputs",
        "add_branch": "passes.add_branch:AddBranch",
        "refit_affine": "passes.refit_affine:RefitAffine",
        "distill": "passes.distill:Distill",
        "fold_affine": "passes.fold_affine:FoldAffine",
        "add_quantiles": "passes.add_quantiles:AddQuantiles",
    },
    plural="passes",
    contract="compiler.ir.passes:Pass",
)
"""Name -> :class:`~tsfmc.compiler.ir.passes.Pass`; plugins join through ``tsfmc.passes``."""
