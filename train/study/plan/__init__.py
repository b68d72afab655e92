"""What a study consists of, and which runs it needs. Exports everything that a study file uses."""

from train.study.plan.claims import Claim, Comparison, Pair
from train.study.plan.runs import (
    PlannedRun,
    planned_runs,
    select,
    trial_runs,
    with_data,
    with_data_dir,
    with_epochs,
)
from train.study.plan.sections import Reference, Section, Variant
from train.study.plan.study import SCALES, Picture, Study
from train.study.plan.study_file import copy_study_file, load_study, run_study_file
from train.study.plan.tuning import Range, log_uniform, uniform

__all__ = [
    "SCALES",
    "Claim",
    "Comparison",
    "Pair",
    "Picture",
    "PlannedRun",
    "Range",
    "Reference",
    "Section",
    "Study",
    "Variant",
    "copy_study_file",
    "load_study",
    "log_uniform",
    "planned_runs",
    "run_study_file",
    "select",
    "trial_runs",
    "uniform",
    "with_data",
    "with_data_dir",
    "with_epochs",
]
