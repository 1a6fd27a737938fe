"""Explainers: why this class - and, with a contrast, why not the others.

A method is one file with one class, which says its own `name`, and its line in the list of public names below. From
those `EXPLAINERS` is made, the list that the command line and the contract tests run over.
"""

from contrex.explain.activation.ablation_cam import AblationCAM
from contrex.explain.activation.cam import CAM
from contrex.explain.activation.eigen_cam import EigenCAM
from contrex.explain.activation.fem import FEM
from contrex.explain.activation.grad_cam import GradCAM
from contrex.explain.activation.grad_cam_plus_plus import GradCAMPlusPlus
from contrex.explain.activation.guided_grad_cam import GuidedGradCAM
from contrex.explain.activation.hires_cam import HiResCAM
from contrex.explain.activation.kpca_cam import KPCACAM
from contrex.explain.activation.layer_cam import LayerCAM
from contrex.explain.activation.refine_cam import RefineCAM
from contrex.explain.activation.score_cam import ScoreCAM
from contrex.explain.activation.shapley_cam import ShapleyCAM
from contrex.explain.activation.xgrad_cam import XGradCAM
from contrex.explain.adaptors.captum import Captum
from contrex.explain.attention.attention_rollout import AttentionRollout
from contrex.explain.attention.gradient_attention_rollout import GradientAttentionRollout
from contrex.explain.attention.legrad import LeGrad
from contrex.explain.expected import ExpectedExplanation
from contrex.explain.explainer import ActivationExplainer, Explainer, InputExplainer, LayerExplainer
from contrex.explain.explanation import ClassExplanations, Explanation
from contrex.explain.input.deconvnet import Deconvnet
from contrex.explain.input.full_grad import FullGrad
from contrex.explain.input.gradient import Gradient
from contrex.explain.input.gradient_times_input import GradientTimesInput
from contrex.explain.input.guided_backprop import GuidedBackprop
from contrex.explain.input.integrated_gradients import IntegratedGradients
from contrex.explain.input.smooth_grad import SmoothGrad
from contrex.explain.perturbation.explainer import PerturbationExplainer
from contrex.explain.perturbation.occlusion import Occlusion
from contrex.explain.perturbation.rise import RISE
from contrex.explain.propagation.contrastive_excitation_backprop import ContrastiveExcitationBackprop
from contrex.explain.propagation.excitation_backprop import ExcitationBackprop
from contrex.explain.propagation.lrp import LRP

__all__ = [  # noqa: RUF022 - in the order in which lists show the methods
    "ActivationExplainer",
    "Captum",
    "ClassExplanations",
    "EXPLAINERS",
    "ExpectedExplanation",
    "Explainer",
    "Explanation",
    "InputExplainer",
    "LayerExplainer",
    "PerturbationExplainer",
    "GradCAM",
    "HiResCAM",
    "CAM",
    "XGradCAM",
    "GradCAMPlusPlus",
    "LayerCAM",
    "RefineCAM",
    "ShapleyCAM",
    "EigenCAM",
    "KPCACAM",
    "FEM",
    "ScoreCAM",
    "AblationCAM",
    "GuidedGradCAM",
    "Gradient",
    "GradientTimesInput",
    "SmoothGrad",
    "IntegratedGradients",
    "GuidedBackprop",
    "Deconvnet",
    "FullGrad",
    "RISE",
    "Occlusion",
    "ExcitationBackprop",
    "ContrastiveExcitationBackprop",
    "LRP",
    "AttentionRollout",
    "GradientAttentionRollout",
    "LeGrad",
]

EXPLAINERS: dict[str, type[Explainer]] = {
    kind.name: kind
    for kind in map(globals().get, __all__)
    if isinstance(kind, type) and issubclass(kind, Explainer) and "name" in vars(kind) and kind.name
}
"""The methods that are made from a model alone, by the name that each has."""
