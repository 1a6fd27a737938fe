"""A default that `settings` has is the same in the functions that the setting reaches: in Python, on the command line
and in a report one name means one number."""

import inspect
from dataclasses import MISSING, fields

import pytest

from contrex import losses, metrics, settings
from contrex.explain import Explainer, GradCAM, LayerExplainer
from contrex.ops import pixels

FEEDS = [
    # what feeds, what is fed, and the settings whose names differ: parameter -> field
    (settings.Infidelity, metrics.infidelity, {}),
    (settings.MaxSensitivity, metrics.max_sensitivity, {}),
    (settings.Pointing, metrics.pointing_game, {}),
    (settings.Pointing, metrics.stochastic_pointing_game, {}),
    (settings.Pointing, metrics.PointingGame, {}),
    (settings.Pointing, metrics.StochasticPointingGame, {}),
    (settings.RelativeProbability, metrics.masked_relative_probability, {}),
    (settings.RelativeProbability, metrics.kept_pixels, {}),
    (settings.RelativeProbability, metrics.baseline_images, {"names": "baselines"}),
    (settings.RelativeProbability, metrics.reflected_blur, {}),
    (settings.RelativeProbability, metrics.RelativeProbability, {}),
    (settings.GradientSign, metrics.gradient_sign_curves, {}),
    (settings.Evaluation, metrics.Answers, {}),
    (settings.Evaluation, metrics.insertion_curve, {"baseline": "insertion_baseline"}),
    (settings.Evaluation, metrics.deletion_curve, {"baseline": "deletion_baseline"}),
    (settings.Evaluation, metrics.kept_probabilities, {"fractions": "drop_fractions"}),
    (settings.Evaluation, metrics.expected_calibration_error, {"num_bins": "calibration_bins"}),
    (settings.Evaluation, metrics.reliability_diagram, {"num_bins": "calibration_bins"}),
    (settings.Evaluation, metrics.ExpectedCalibrationError, {"num_bins": "calibration_bins"}),
    (settings.Evaluation, metrics.randomized, {}),
    (settings.Randomization, metrics.randomized, {}),
    (settings.Evaluation, metrics.road_difference, {"fractions": "arcc_fractions"}),
    (settings.Evaluation, metrics.agrees_beyond_chance, {}),
    (settings.SingleDeletion, metrics.single_deletion, {}),
    (settings.GridPointing, metrics.GridPointingGame, {}),
    (settings.Evaluation, Explainer.__call__, {}),
    (settings.Evaluation, LayerExplainer, {}),
    (settings.Evaluation, GradCAM, {}),
    (settings.CGC, losses.cgc_loss, {"size": "resolution"}),
    (settings.CGC, losses.cgc_losses, {"size": "resolution"}),
    (settings.CGCNoNegatives, losses.l2_consistency_loss, {"size": "resolution"}),
    (settings.Retrofit, losses.cgc_loss, {"size": "resolution"}),
    (settings.Retrofit, losses.l2_consistency_loss, {"size": "resolution"}),
    (settings.Retrofit, losses.distillation_loss, {"temperature": "distillation_temperature"}),
    (settings.SupCon, losses.supcon_loss, {}),
    (settings.ExCon, losses.supcon_loss, {}),
    (settings.ExCon, pixels.explanation_mask, {}),
]
OTHERS = {
    (settings.RelativeProbability, metrics.masked_relative_probability): {"baselines"},  # images, not their names
}
"""Parameters that have the name of a field and mean something else."""


def defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def shared(feeds, function, names):
    """The parameters whose defaults are those of fields, each with its field."""
    set_to = {field.name for field in fields(feeds) if field.default is not MISSING}
    own = defaults(function).keys() - OTHERS.get((feeds, function), set())
    return {name: names.get(name, name) for name in own if names.get(name, name) in set_to}


@pytest.mark.parametrize(("feeds", "function", "names"), FEEDS, ids=lambda part: getattr(part, "__name__", ""))
def test_function_and_setting_have_one_default(feeds, function, names):
    found, own = shared(feeds, function, names), defaults(function)
    assert found, "nothing is fed here: take the line out"
    assert names.keys() <= found.keys()
    assert {name: own[name] for name in found} == {name: getattr(feeds, field) for name, field in found.items()}


def every_default():
    """(function, parameter, default) of all public functions and classes of metrics and losses."""
    for module in (metrics, losses):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                for parameter, default in defaults(thing).items():
                    yield name, parameter, default


OWN = {
    ("MapAgreement", "kind"),
    ("MapAgreement", "relation"),
    ("RandomizationSimilarity", "each"),
    ("RandomizationSimilarity", "kind"),
    ("bootstrap_interval", "level"),
    ("chance_similarity", "kind"),
    ("crop_of_strength", "flip"),
    ("ComposedScore", "measure"),
    ("ContentHeatmapAtSpread", "share"),
    ("EquivarianceError", "flip"),
    ("gradient_sign_curves", "clamp"),
    ("kept_pixels", "sign"),
    ("kept_probabilities", "baseline"),
    ("map_similarity", "kind"),
    ("masked_relative_probability", "signs"),
    ("object_mask", "index"),
    ("reflected_blur", "kernel_size"),
    ("supcon_loss", "num_background"),
}
"""Defaults that are no settings: options that no evaluation or training offers."""


def test_no_other_default_is_a_number_or_a_name():
    """A new default is a setting, and then in FEEDS, or it is listed here on purpose."""
    fed = {(function.__name__, name) for feeds, function, names in FEEDS for name in shared(feeds, function, names)}
    literal = {(name, parameter) for name, parameter, default in every_default() if default is not None}
    assert literal - fed == OWN
