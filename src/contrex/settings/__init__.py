"""The settings of a run: frozen dataclasses, whose fields hold all defaults of contrex.

This package imports no torch, so that the command line can show, check and override a recipe before anything heavy is
loaded. Each part of a run reads its own dataclass; options are nowhere else.

A value outside its range raises `ArgumentError` when the dataclass is made. The error names the field as the command
line of `contrex train` does, such as `training.epochs`.
"""

from __future__ import annotations

from contrex.settings.data import (
    CUB200,
    DATA_PREFIXES,
    SMALLEST_DIGIT,
    Cifar,
    Data,
    Detection,
    Digits,
    FGVCAircraft,
    FineGrained,
    Flowers102,
    Folder,
    Food101,
    HeldBack,
    HuggingFace,
    ImageNet,
    Limited,
    OxfordPets,
    Photos,
    Shards,
    Skipping,
    StanfordCars,
    Stored,
    TinyImageNet,
    TrainTest,
    UnRel,
)
from contrex.settings.evaluation import (
    Baseline,
    Embedding,
    Evaluation,
    GradientSign,
    Infidelity,
    MaxSensitivity,
    Pointing,
    RelativeProbability,
    Task,
)
from contrex.settings.family import Family
from contrex.settings.labelled import Labelled
from contrex.settings.method import (
    CGC,
    GCC,
    CGCNoNegatives,
    CrossEntropy,
    ExCon,
    LinearClassifier,
    Method,
    SupCon,
    Variant,
    Views,
)
from contrex.settings.model import IMAGENET_MEAN, IMAGENET_STD, Layout, Model, Stem
from contrex.settings.recipe import Recipe, Reference, run_name
from contrex.settings.training import Augmentation, Optimizer, Schedule, Training

__all__ = [
    "CGC",
    "CUB200",
    "DATA_PREFIXES",
    "GCC",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SMALLEST_DIGIT",
    "Augmentation",
    "Baseline",
    "CGCNoNegatives",
    "Cifar",
    "CrossEntropy",
    "Data",
    "Detection",
    "Digits",
    "Embedding",
    "Evaluation",
    "ExCon",
    "FGVCAircraft",
    "Family",
    "FineGrained",
    "Flowers102",
    "Folder",
    "Food101",
    "GradientSign",
    "HeldBack",
    "HuggingFace",
    "ImageNet",
    "Infidelity",
    "Labelled",
    "Layout",
    "Limited",
    "LinearClassifier",
    "MaxSensitivity",
    "Method",
    "Model",
    "Optimizer",
    "OxfordPets",
    "Photos",
    "Pointing",
    "Recipe",
    "Reference",
    "RelativeProbability",
    "Schedule",
    "Shards",
    "Skipping",
    "StanfordCars",
    "Stem",
    "Stored",
    "SupCon",
    "Task",
    "TinyImageNet",
    "TrainTest",
    "Training",
    "UnRel",
    "Variant",
    "Views",
    "run_name",
]
