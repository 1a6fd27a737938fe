"""Metrics judge heatmaps and classifiers: pure functions that return one value per image, and thin accumulators.

| subject | functions | accumulators |
|---|---|---|
| accuracy | `top_k_correct`, `fgsm` | `TopKAccuracy`, `RobustAccuracy` |
| calibration | `expected_calibration_error`, `reliability_diagram` | `ExpectedCalibrationError` |
| localisation | `content_heatmap`, `at_spread`, `pointing_game` | `ContentHeatmap`, `PointingGame` |
| | `grid_pointing_game`, `human_alignment` | `GridPointingGame`, `HumanAlignment` |
| class contrast | `masked_relative_probability`, `gradient_sign_curves` | `RelativeProbability`, `GradientSign` |
| faithfulness | `insertion_curve`, `kept_probabilities`, `infidelity` | `InsertionAUC`, `DropPercent`, `Infidelity` |
| | `adcc`, `arcc`, `single_deletion` | `ComposedScore`, `SingleDeletion` |
| stability | `equivariance_similarity`, `max_sensitivity` | `EquivarianceError`, `MaxSensitivity`, `CGCLossMetric` |
| sanity | `randomized`, `map_similarity`, `changes` | `RandomizationSimilarity` |
| agreement of networks | `map_similarity`, `agrees_beyond_chance` | `MapAgreement` |

Those that change images ask the model through `Answers`, and all remove pixels as `contrex.metrics.removal` says.
Accumulators (`PerSampleMetric`) have `update`, `compute` and `reset`, and give the same result on many processes;
`as_torchmetric` makes a torchmetrics metric of one. A new metric is a file with both, and a protocol in
`contrex.evaluation` that shows it a data set. docs/metrics has a page about each.
"""

from __future__ import annotations

from contrex.metrics.accuracy import TopKAccuracy, top_k_correct
from contrex.metrics.adversarial import RobustAccuracy, fgsm, fgsm_direction, pixel_bounds
from contrex.metrics.agreement import MapAgreement, agrees_beyond_chance
from contrex.metrics.calibration import (
    ExpectedCalibrationError,
    ReliabilityDiagram,
    confidence_and_correct,
    expected_calibration_error,
    reliability_diagram,
)
from contrex.metrics.composed import (
    ComposedScore,
    adcc,
    arcc,
    coherency,
    complexity,
    road_difference,
    unit_maps,
)
from contrex.metrics.consistency import CGCLossMetric
from contrex.metrics.content_heatmap import ContentHeatmap, ContentHeatmapAtSpread, content_heatmap
from contrex.metrics.curve_mean import CurveMean
from contrex.metrics.drop_increase import (
    DropMagnitude,
    DropPercent,
    IncreaseMagnitude,
    IncreasePercent,
    drop_magnitude,
    drop_percent,
    increase_magnitude,
    increase_percent,
    kept_probabilities,
)
from contrex.metrics.equivariance import EquivarianceError, crop_of_strength, equivariance_similarity
from contrex.metrics.features import FeatureSimilarity, feature_similarity
from contrex.metrics.gradient_sign import (
    GradientSign,
    GradientSignCurves,
    gradient_sign_curves,
    score_gradient,
    score_gradients,
)
from contrex.metrics.grid_pointing import GridPointingGame, grid_pointing_game
from contrex.metrics.human_alignment import HumanAlignment, human_alignment
from contrex.metrics.infidelity import Infidelity, infidelity
from contrex.metrics.insertion import (
    CurveArea,
    DeletionAUC,
    InsertionAUC,
    area_under_curve,
    curve_fractions,
    deletion_curve,
    insertion_curve,
)
from contrex.metrics.localisation import Region, object_mask
from contrex.metrics.masking import kept_pixels
from contrex.metrics.per_sample import PerSampleMetric, bootstrap_interval
from contrex.metrics.pointing_game import PointingGame, StochasticPointingGame, pointing_game, stochastic_pointing_game
from contrex.metrics.probing import Answers
from contrex.metrics.randomization import (
    RandomizationSimilarity,
    below_chance,
    changes,
    randomized,
)
from contrex.metrics.relative_probability import (
    RelativeProbability,
    masked_relative_probability,
    relative_probability,
    two_most_probable,
)
from contrex.metrics.removal import baseline_images
from contrex.metrics.sensitivity import MaxSensitivity, max_sensitivity
from contrex.metrics.similarity import chance_similarity, map_similarity
from contrex.metrics.single_deletion import SingleDeletion, single_deletion
from contrex.metrics.spread import Spread, at_spread, spread
from contrex.metrics.torchmetric import as_torchmetric
from contrex.ops.pixels import reflected_blur

__all__ = [
    "Answers",
    "CGCLossMetric",
    "ComposedScore",
    "ContentHeatmap",
    "ContentHeatmapAtSpread",
    "CurveArea",
    "CurveMean",
    "DeletionAUC",
    "DropMagnitude",
    "DropPercent",
    "EquivarianceError",
    "ExpectedCalibrationError",
    "FeatureSimilarity",
    "GradientSign",
    "GradientSignCurves",
    "GridPointingGame",
    "HumanAlignment",
    "IncreaseMagnitude",
    "IncreasePercent",
    "Infidelity",
    "InsertionAUC",
    "MapAgreement",
    "MaxSensitivity",
    "PerSampleMetric",
    "PointingGame",
    "RandomizationSimilarity",
    "Region",
    "RelativeProbability",
    "ReliabilityDiagram",
    "RobustAccuracy",
    "SingleDeletion",
    "Spread",
    "StochasticPointingGame",
    "TopKAccuracy",
    "adcc",
    "agrees_beyond_chance",
    "arcc",
    "area_under_curve",
    "as_torchmetric",
    "at_spread",
    "baseline_images",
    "below_chance",
    "bootstrap_interval",
    "chance_similarity",
    "changes",
    "coherency",
    "complexity",
    "confidence_and_correct",
    "content_heatmap",
    "crop_of_strength",
    "curve_fractions",
    "deletion_curve",
    "drop_magnitude",
    "drop_percent",
    "equivariance_similarity",
    "expected_calibration_error",
    "feature_similarity",
    "fgsm",
    "fgsm_direction",
    "gradient_sign_curves",
    "grid_pointing_game",
    "human_alignment",
    "increase_magnitude",
    "increase_percent",
    "infidelity",
    "insertion_curve",
    "kept_pixels",
    "kept_probabilities",
    "map_similarity",
    "masked_relative_probability",
    "max_sensitivity",
    "object_mask",
    "pixel_bounds",
    "pointing_game",
    "randomized",
    "reflected_blur",
    "relative_probability",
    "reliability_diagram",
    "road_difference",
    "score_gradient",
    "score_gradients",
    "single_deletion",
    "spread",
    "stochastic_pointing_game",
    "top_k_correct",
    "two_most_probable",
    "unit_maps",
]
