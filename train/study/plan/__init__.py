"""What a study consists of, and which runs it needs. Exports everything that a study file uses."""

from train.study.plan.claims import Claim, Comparison, Pair
from train.study.plan.runs import PlannedRun, planned_runs, select, with_data, with_data_dir, with_epochs
from train.study.plan.study import SCALES, Reference, Section, Study, Variant
from train.study.plan.study_file import copy_study_file, load_study, run_study_file

__all__ = [
    "SCALES",
    "Claim",
    "Comparison",
    "Pair",
    "PlannedRun",
    "Reference",
    "Section",
    "Study",
    "Variant",
    "copy_study_file",
    "load_study",
    "planned_runs",
    "run_study_file",
    "select",
    "with_data",
    "with_data_dir",
    "with_epochs",
]
