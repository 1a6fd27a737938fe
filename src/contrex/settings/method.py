"""The training objectives: a dataclass for each, with what it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from contrex.errors import ArgumentError
from contrex.settings.explainer import read_explainer
from contrex.settings.family import Family
from contrex.settings.ranges import check, check_at_least, check_positive
from contrex.settings.training import Optimizer, Schedule

Views = Literal["both", "plain", "transformed"]
Variant = Literal["paper", "published-code"]


@dataclass(frozen=True)
class Method(Family):
    """The settings of a training method. Each kind of them names its step, a `contrex.methods.Step`."""

    is_family: ClassVar[bool] = True


@dataclass(frozen=True)
class CrossEntropy(Method):
    """Cross-entropy alone: the baseline, on the same views as the methods it is compared with."""

    implementation: ClassVar[str] = "contrex.methods.cross_entropy:CrossEntropyStep"

    views: Views = "both"
    """Classify the untransformed image, its transformed view, or both (mean)."""


@dataclass(frozen=True)
class CGC(Method):
    """Cross-entropy + `weight` x contrastive Grad-CAM consistency (CVPR 2022)."""

    implementation: ClassVar[str] = "contrex.methods.cgc:CGCStep"

    weight: float = 1.0
    """lambda: the weight of the consistency loss."""
    temperature: float = 0.5
    """tau: the temperature of the similarities."""
    variant: Variant = "paper"
    """The paper's equation, or the published code's (its negatives, and three cross-entropy terms)."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); `published-code` sums three of its own instead, unless there are
    unlabelled images."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""
    queue: int = 0
    """Past heatmaps kept as extra negatives; 0 is off, as in the paper."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S (the input size in the paper)."""

    def __post_init__(self) -> None:
        check_at_least(0, "method", weight=self.weight, queue=self.queue)
        check_at_least(1, "method", resolution=self.resolution)
        check_positive("method", temperature=self.temperature)


@dataclass(frozen=True)
class CGCNoNegatives(Method):
    """Cross-entropy + `weight` x squared L2 distance of the normalised heatmaps (CGC, Table 5)."""

    implementation: ClassVar[str] = "contrex.methods.cgc:CGCNoNegativesStep"

    weight: float = 1.0
    """lambda: the weight of the consistency loss."""
    variant: Variant = "paper"
    """Squared distance summed over pixels, or averaged over them as in the published code."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); `published-code` sums three of its own instead, unless there are
    unlabelled images."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S (the input size in the paper)."""

    def __post_init__(self) -> None:
        check_at_least(0, "method", weight=self.weight)
        check_at_least(1, "method", resolution=self.resolution)


@dataclass(frozen=True)
class GCC(Method):
    """Cross-entropy + `weight` x consistency of the heatmap of an image and of a composite that holds it among three
    images of other classes (AAAI 2021)."""

    implementation: ClassVar[str] = "contrex.methods.gcc:GCCStep"

    weight: float = 25.0
    """lambda: the weight of the consistency loss. It is a mean over the cells of the map: finer maps need more."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); the published code has the transformed one, which is composed."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""

    def __post_init__(self) -> None:
        check_at_least(0, "method", weight=self.weight)


@dataclass(frozen=True)
class LinearClassifier:
    """The second phase: the encoder frozen in eval mode, its linear classifier trained with cross-entropy."""

    optimizer: Optimizer | None = None
    """None is the recipe's."""
    schedule: Schedule | None = None
    """None is the recipe's."""
    epochs: int | None = None
    """With the encoder first: epochs of this phase, None as many as the encoder's. Alternating has one for each."""
    views: Literal["transformed", "plain"] = "transformed"
    """Train on crops and flips, as the paper, or on the plain images."""
    cache_features: bool = False
    """Compute the features of a plain image once for as long as the encoder does not change; needs plain views."""

    def __post_init__(self) -> None:
        check_at_least(1, "method.classifier", epochs=self.epochs)
        if self.cache_features and self.views != "plain":
            raise ArgumentError(
                "`method.classifier.cache_features` needs `method.classifier.views` plain: transformed views are new "
                "images in every epoch."
            )


@dataclass(frozen=True)
class SupCon(Method):
    """Supervised contrastive learning of the encoder, and a linear classifier on it (ExCon, section 3)."""

    implementation: ClassVar[str] = "contrex.methods.supcon:SupConStep"

    temperature: float = 0.1
    """tau: the temperature of the similarities."""
    base_temperature: float | None = None
    """Multiplies the loss by temperature / base_temperature (0.07 in the published code); None does not."""
    labels: bool = True
    """Images of one class are positives of each other; without labels only views of one image are (SimCLR)."""
    order: Literal["alternating", "encoder-first"] = "alternating"
    """Encoder and classifier in turns, an epoch each (Algorithm 1), or all epochs of the encoder first (SupConOri)."""
    projection_dim: int = 128
    """D: the length of the embeddings, made by two linear layers with a ReLU between them."""
    classifier: LinearClassifier = LinearClassifier()
    """The second phase."""

    def __post_init__(self) -> None:
        check_positive("method", temperature=self.temperature, base_temperature=self.base_temperature)
        check_at_least(1, "method", projection_dim=self.projection_dim)
        if self.order == "alternating" and self.classifier.cache_features:
            raise ArgumentError(
                "`method.classifier.cache_features` needs `method.order` encoder-first: alternating changes the "
                "encoder before each epoch of the classifier."
            )
        if self.order == "alternating" and self.classifier.epochs is not None:
            raise ArgumentError(
                "`method.classifier.epochs` is for `method.order` encoder-first: alternating has an epoch of the "
                "classifier after each of the encoder."
            )


@dataclass(frozen=True)
class ExCon(SupCon):
    """SupCon with the explanation as a view: where the classifier is right on what its heatmap keeps of an image, that
    is the first view (section 3.3); with `background`, where it is wrong, that is a negative of all (ExConB, 3.4)."""

    implementation: ClassVar[str] = "contrex.methods.excon:ExConStep"

    background: bool = False
    """ExConB: masked images that are not classified right are added as background, in denominators only."""
    starting_epoch: int = 0
    """Random views until this epoch."""
    explainer: str = "grad_cam"
    """What explains the plain image for its label: a name (contrex explainers), FILE.py:CLASS or MODULE:CLASS,
    with options where it has some."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """Explain the label against the others: None, as in the paper, "mean", "max" or "weighted"."""
    threshold: float = 0.5
    """Pixels whose heatmap, scaled to 0..1, is at most this become zero."""
    variant: Variant = "paper"
    """`published-code` explains and checks in train mode (batch-norm statistics move), and runs each background image
    through the network twice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        read_explainer(self.explainer, "`method.explainer`")
        check_at_least(0, "method", starting_epoch=self.starting_epoch)
        check(0 <= self.threshold < 1, "method.threshold", self.threshold, "from 0 to below 1")
        if not self.labels:
            raise ArgumentError("`method.labels` must be set for ExCon: it explains each image for its label.")


@dataclass(frozen=True)
class Retrofit(Method):
    """Distillation from the network as it was + `weight` x consistency of the heatmaps: better heatmaps for a network
    that is trained already, from images without labels."""

    implementation: ClassVar[str] = "contrex.methods.retrofit:RetrofitStep"

    weight: float = 0.5
    """lambda: the weight of the consistency loss."""
    distillation_weight: float = 1.0
    """The weight of the divergence from the teacher's probabilities, on the plain and the transformed images."""
    distillation_temperature: float = 1.0
    """T: what both networks' logits are divided by before the divergence, which is multiplied by its square."""
    teacher_decay: float | None = None
    """How much of the teacher stays in each step while it follows the network; None is the network as it was."""
    trained: tuple[str, ...] = ("last-stage",)
    """What of the network is trained: last-stage (all from where the last feature map gets its size), head (the last
    linear layer), all, or names of modules."""
    mode: Literal["eval", "train"] = "eval"
    """eval: batch norms keep their statistics and dropout is off, as in the teacher; train: the trained part is in
    train mode."""
    label_weight: float = 0.0
    """The weight of the cross-entropy of images with a label; 0 reads no labels."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean)."""
    negatives: bool = True
    """Contrast each heatmap with those of other images, as CGC; without, the distance of its pair alone."""
    temperature: float = 0.5
    """tau: the temperature of the similarities with negatives."""
    variant: Variant = "paper"
    """CGC's equations, or its published code's (its negatives; without negatives, a mean over the pixels)."""
    queue: int = 0
    """Past heatmaps kept as extra negatives; 0 is off."""
    explainer: str = "hires_cam"
    """What explains the images: the name of a differentiable explainer (contrex explainers), FILE.py:CLASS or
    MODULE:CLASS, with options where it has some."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S."""

    def __post_init__(self) -> None:
        read_explainer(self.explainer, "`method.explainer`")
        weights = {name: getattr(self, name) for name in ("weight", "distillation_weight", "label_weight", "queue")}
        check_at_least(0, "method", **weights)
        check_at_least(1, "method", resolution=self.resolution)
        check_positive("method", temperature=self.temperature, distillation_temperature=self.distillation_temperature)
        decay = self.teacher_decay
        check(decay is None or 0 <= decay < 1, "method.teacher_decay", decay, "from 0 to below 1, or None")
        if not self.trained:
            raise ArgumentError("`method.trained` names nothing: give last-stage, head, all, or names of modules.")
        if self.queue and not self.negatives:
            raise ArgumentError(
                f"`method.queue` {self.queue} holds negatives, and `method.negatives` says that there are none: leave "
                "one of them out."
            )
