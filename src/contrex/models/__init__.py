"""Classifiers: built by name, loaded from a state_dict, unwrapped, and searched for the layer to explain."""

from contrex.models.classes import class_index, class_names
from contrex.models.layers import FeatureMapFinder, find_layer, unwrap
from contrex.models.load import Classifier, build_network, load_classifier
from contrex.models.modes import eval_mode

__all__ = [
    "Classifier",
    "FeatureMapFinder",
    "build_network",
    "class_index",
    "class_names",
    "eval_mode",
    "find_layer",
    "load_classifier",
    "unwrap",
]
