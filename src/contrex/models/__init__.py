"""Classifiers: built by name, loaded from a state_dict, unwrapped, searched for the layer to explain, and split."""

from contrex.models.beside import Arguments
from contrex.models.classes import class_index, class_names
from contrex.models.classifier import Classifier
from contrex.models.layers import find_layer, unwrap
from contrex.models.load import build_network, load_classifier
from contrex.models.modes import eval_mode
from contrex.models.outputs import model_logits
from contrex.models.pooling import with_pooling
from contrex.models.split import ProjectionHead, check_classifier, classifier_head, classifier_heads
from contrex.models.stage import last_stage
from contrex.models.stem import cifar_stem

__all__ = [
    "Arguments",
    "Classifier",
    "ProjectionHead",
    "build_network",
    "check_classifier",
    "cifar_stem",
    "class_index",
    "class_names",
    "classifier_head",
    "classifier_heads",
    "eval_mode",
    "find_layer",
    "last_stage",
    "load_classifier",
    "model_logits",
    "unwrap",
    "with_pooling",
]
