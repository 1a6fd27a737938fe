"""The settings of training methods: a dataclass for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from contrex.errors import ArgumentError
from contrex.settings.contrast import check_contrast
from contrex.settings.explainer import read_explainer
from contrex.settings.family import Family
from contrex.settings.ranges import check, check_at_least, check_positive
from contrex.settings.training import Optimizer, Schedule

Views = Literal["both", "plain", "transformed"]
Variant = Literal["paper", "published-code"]


@dataclass(frozen=True)
class Method(Family):
    """The settings of a training method. Each kind names its step, a `contrex.methods.Step`."""

    is_family: ClassVar[bool] = True

    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What papers call it: each name with the options that it stands for."""


@dataclass(frozen=True)
class CrossEntropy(Method):
    """Cross-entropy alone: the baseline, with the same views as the methods that it is compared with."""

    implementation: ClassVar[str] = "contrex.methods.cross_entropy:CrossEntropyStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cross_entropy": {}}

    views: Views = "both"
    """What is classified: the plain image, its transformed view, or both (the mean of their losses)."""
    deletions: float = 0.0
    """The share of the images of which one cell of a grid is deleted: 0.5 fine-tunes a network for the single deletion
    score (IDSDS)."""
    deletion_grid: int = 4
    """Cells on each side of that grid."""

    def __post_init__(self) -> None:
        check(0 <= self.deletions <= 1, "method.deletions", self.deletions, "a share of the images, from 0 to 1")
        check_at_least(2, "method", deletion_grid=self.deletion_grid)

    def written(self) -> Mapping[str, Any]:
        """The fields as the first records and checkpoints have them; of deletions no word where there are none."""
        return {"views": self.views} if not self.deletions else vars(self)


@dataclass(frozen=True, kw_only=True)
class MapConsistency(Method):
    """What the two forms of CGC share: the heatmaps of an image and of its transformed view should agree."""

    # `consistency_after`, a share of the epochs, came in its place.
    formerly: ClassVar[Mapping[str, Any]] = {"starting_epoch": 0}

    weight: float = field(default=1.0, kw_only=False)
    """lambda: the weight of the consistency loss."""
    variant: Variant = "paper"
    """The paper's equation, or that of the published code: its negatives, or without any a mean over the pixels and no
    sum; and three cross-entropy terms."""
    views: Views = "both"
    """The views of the cross-entropy, a mean over them; `published-code` sums three of its own instead, unless there
    are images without labels."""
    layer: str | None = None
    """The layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast of the heatmaps: None, or one by name: "mean", "max", "weighted", "nearest"."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S (the input size in the paper)."""
    views_share: float = 1.0
    """The share of each batch whose view is seen, and whose heatmaps are compared; the others are classified alone."""
    consistency_after: float = 0.0
    """The share of the epochs with the cross-entropy alone, before the consistency begins; the paper has none."""
    explained: Literal["prediction", "label"] = "prediction"
    """The class whose heatmaps are compared: what is predicted on the plain image (the paper's), or the label."""
    view_layer: str | None = None
    """The layer whose output is cropped and mirrored for the second view, so that only what follows runs twice: its
    name, or last-stage for the one before the last stage. None, as in the paper, transforms the image."""

    def __post_init__(self) -> None:
        check_contrast(self.contrast)
        check_at_least(0, "method", weight=self.weight)
        check_at_least(1, "method", resolution=self.resolution)
        share, after, is_published = self.views_share, self.consistency_after, self.variant == "published-code"
        check(0 < share <= 1, "method.views_share", share, "a share, above 0 and up to 1")
        check(0 <= after < 1, "method.consistency_after", after, "a share, from 0 and below 1")
        if share < 1 and is_published:
            raise ArgumentError(
                f"`method.views_share` {share} leaves out views that `method.variant` published-code classifies: take "
                "the variant paper, or all views."
            )
        if self.view_layer is not None and is_published:
            raise ArgumentError(
                f"`method.view_layer` {self.view_layer} has no transformed images, which `method.variant` "
                "published-code classifies: take the variant paper, or leave it out."
            )
        if after and is_published:
            raise ArgumentError(
                f"`method.consistency_after` {after} begins with one cross-entropy, and `method.variant` "
                "published-code has three: take the variant paper, or 0."
            )


@dataclass(frozen=True)
class CGC(MapConsistency):
    """Cross-entropy + `weight` x contrastive Grad-CAM consistency (CVPR 2022)."""

    implementation: ClassVar[str] = "contrex.methods.cgc:CGCStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cgc": {}}

    temperature: float = 0.5
    """tau: the temperature of the similarities."""
    queue: int = field(default=0, kw_only=True)
    """How many past heatmaps are kept as extra negatives; 0, as in the paper, is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, "method", queue=self.queue)
        check_positive("method", temperature=self.temperature)


@dataclass(frozen=True)
class CGCNoNegatives(MapConsistency):
    """Cross-entropy + `weight` x squared L2 distance of the normalised heatmaps (CGC, Table 5)."""

    implementation: ClassVar[str] = "contrex.methods.cgc:CGCNoNegativesStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"cgc_no_negatives": {}}


@dataclass(frozen=True)
class GCC(Method):
    """Cross-entropy + `weight` x consistency with composites (AAAI 2021).

    A composite has the image beside three images of other classes. The heatmap of the image should be the same in it.
    """

    implementation: ClassVar[str] = "contrex.methods.gcc:GCCStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"gcc": {}}

    weight: float = 25.0
    """lambda: the weight of the consistency loss, which is a mean over cells: finer heatmaps need a larger weight."""
    views: Views = "both"
    """The views of the cross-entropy, a mean over them. The published code has the transformed one, as composites
    do."""
    layer: str | None = None
    """The layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast of the heatmaps: None, or one by name: "mean", "max", "weighted", "nearest"."""

    def __post_init__(self) -> None:
        check_contrast(self.contrast)
        check_at_least(0, "method", weight=self.weight)


@dataclass(frozen=True)
class LinearClassifier:
    """The second phase: a linear classifier is trained with cross-entropy on the frozen encoder (eval mode)."""

    optimizer: Optimizer | None = None
    """The optimiser of this phase; None is the recipe's."""
    schedule: Schedule | None = None
    """The schedule of this phase; None is the recipe's."""
    epochs: int | None = None
    """The epochs of this phase, for `order` encoder-first. None is as many as the encoder's."""
    views: Literal["transformed", "plain"] = "transformed"
    """Train on crops and flips, as in the paper, or on plain images."""
    cache_features: bool = False
    """Compute the features of each plain image once, and keep them while the encoder does not change; needs plain
    views."""

    def __post_init__(self) -> None:
        check_at_least(1, "method.classifier", epochs=self.epochs)
        if self.cache_features and self.views != "plain":
            raise ArgumentError(
                "`method.classifier.cache_features` needs `method.classifier.views` plain: transformed views are new "
                "images in every epoch."
            )


@dataclass(frozen=True)
class SupCon(Method):
    """Supervised contrastive learning of the encoder, with a linear classifier on it (ExCon, section 3)."""

    implementation: ClassVar[str] = "contrex.methods.supcon:SupConStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "supcon": {},
        "supcon_ori": {"order": "encoder-first"},
        "simclr": {"order": "encoder-first", "labels": False},
    }

    temperature: float = 0.1
    """tau: the temperature of the similarities."""
    base_temperature: float | None = None
    """The loss is multiplied by temperature / base_temperature (0.07 in the published code); None does not multiply."""
    labels: bool = True
    """Images of one class are positives of each other. Without labels only views of one image are (SimCLR)."""
    order: Literal["alternating", "encoder-first"] = "alternating"
    """Train encoder and classifier in turns, an epoch each (Algorithm 1), or the encoder first in all its epochs
    (SupConOri)."""
    projection_dim: int = 128
    """D: the length of the embeddings, which two linear layers with a ReLU between them make."""
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
                "`method.classifier.epochs` is for `method.order` encoder-first: when alternating, each epoch of "
                "the encoder is followed by one of the classifier. Leave it out."
            )


@dataclass(frozen=True)
class ExCon(SupCon):
    """SupCon with explanations as views: the first view of an image is the part of it that its heatmap keeps.

    That is so where the classifier is right about this masked image (section 3.3). With `background`, a masked image
    that it gets wrong is a negative of all images (ExConB, section 3.4).
    """

    implementation: ClassVar[str] = "contrex.methods.excon:ExConStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"excon": {}, "exconb": {"background": True}}

    background: bool = False
    """ExConB: add masked images that are classified wrongly as negatives, in the denominators only."""
    starting_epoch: int = 0
    """The epoch from which explanations are views; until then all views are random."""
    explainer: str = "grad_cam"
    """The explainer of the plain image for its label: a name (contrex explainers lists them), FILE.py:CLASS or
    MODULE:CLASS, with options in brackets."""
    layer: str | None = None
    """The layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """How to explain the label against the others: None (not at all, as in the paper), or by name:
    "mean", "max", "weighted", "nearest", with options as in --contrast."""
    threshold: float = 0.5
    """Pixels become zero where the heatmap, scaled to 0..1, is at most this."""
    variant: Variant = "paper"
    """`published-code` explains and checks in train mode (batch-norm statistics move), and runs each background image
    through the network twice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_contrast(self.contrast)
        read_explainer(self.explainer, "`method.explainer`")
        check_at_least(0, "method", starting_epoch=self.starting_epoch)
        check(0 <= self.threshold < 1, "method.threshold", self.threshold, "from 0 to below 1")
        if not self.labels:
            raise ArgumentError("`method.labels` must be set for ExCon: it explains each image for its label.")


@dataclass(frozen=True)
class EnergyGuided(Method):
    """Cross-entropy + `weight` x energy of the label's heatmap outside the boxes of the object (ICCV 2023)."""

    implementation: ClassVar[str] = "contrex.methods.energy:EnergyGuidedStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"energy": {}}

    weight: float = 1.0
    """lambda: the weight of the energy loss, a mean over all images: few boxes need a larger weight."""
    boxes: float = 1.0
    """The share of the images whose boxes are used, drawn by the seed; the others have the cross-entropy alone."""
    views: Views = "both"
    """The views of both losses: the plain image, its transformed view, or both."""
    layer: str | None = None
    """The layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast of the heatmaps: None, or one by name: "mean", "max", "weighted", "nearest"."""

    def __post_init__(self) -> None:
        check_contrast(self.contrast)
        check_at_least(0, "method", weight=self.weight)
        check(0 < self.boxes <= 1, "method.boxes", self.boxes, "a share, above 0 and up to 1")


@dataclass(frozen=True)
class BCEHead(Method):
    """Binary cross-entropy of a linear classifier on frozen features: the last layer alone is trained, with sigmoids
    ("How to Probe", ICLR 2025)."""

    implementation: ClassVar[str] = "contrex.methods.bce_head:BCEHeadStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bce_head": {}}

    targets: Literal["labels", "teacher", "teacher-top1"] = "labels"
    """What the sigmoids learn: the labels; without labels the probabilities of the network as it was (teacher), or its
    most probable class (teacher-top1)."""
    start: Literal["uniform", "kept"] = "uniform"
    """Begin with a layer of zeros, for which all classes are as probable, or with the layer as it is."""
    views: Views = "both"
    """What is classified: the plain image, its transformed view, or both (the mean of their losses)."""


@dataclass(frozen=True)
class Retrofit(Method):
    """Distillation from the network as it was + `weight` x consistency of the heatmaps: better heatmaps for a network
    that is trained already, from images without labels."""

    implementation: ClassVar[str] = "contrex.methods.retrofit:RetrofitStep"
    papers_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"retrofit": {}}

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
    compared_with: Literal["view", "teacher", "teacher-plain"] = "view"
    """view: the heatmaps of an image and of its view with each other. teacher: the view's with the teacher's own of it,
    by 1 - cosine (e2KD, ECCV 2024). teacher-plain: with the teacher's of the plain image, transformed, as are its
    probabilities. The last two see the view alone and have no negatives."""
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
    """The contrast inside g: None, or one by name: "mean", "max", "weighted", "nearest"."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S."""
    views_share: float = 1.0
    """The share of each batch whose view is seen, and whose heatmaps are compared; of the others the outputs are held
    alone."""
    view_layer: Literal["trunk"] | None = None
    """trunk: what comes before the trained part is run for the plain image alone, and its output is cropped and
    mirrored for the view, which goes through the trained part alone. None transforms the image."""
    incomplete: float = 0.0
    """The share of the images that are also seen with a part of them blurred, and whose outputs are held there too."""
    keep_gib: float = 2.0
    """GiB of memory for what comes before the trained part, with the teacher's answers: it is computed once, for as
    many plain images as fit, and for their views where these come again (`augmentation.period`). 0 keeps nothing."""
    tolerance: float | None = None
    """How many of the decisions that the teacher is sure of must stay on the photos kept out, in %, such as 99. When
    fewer do at the end of the run, its weights go back towards the first ones, on a straight line, as far as it takes.
    None leaves them."""
    sure: float = 0.5
    """A decision is sure where the teacher's probability of it is at least this."""
    rescale: bool = False
    """At the end of the run all logits are multiplied by the number that brings the probabilities nearest to the
    teacher's on the photos kept out: no decision changes, and confidence that was lost comes back."""

    def __post_init__(self) -> None:
        check_contrast(self.contrast)
        read_explainer(self.explainer, "`method.explainer`")
        check_at_least(0, "method", keep_gib=self.keep_gib)
        weights = {name: getattr(self, name) for name in ("weight", "distillation_weight", "label_weight", "queue")}
        check_at_least(0, "method", **weights)
        check_at_least(1, "method", resolution=self.resolution)
        check_positive("method", temperature=self.temperature, distillation_temperature=self.distillation_temperature)
        decay, tolerance = self.teacher_decay, self.tolerance
        check(decay is None or 0 <= decay < 1, "method.teacher_decay", decay, "from 0 to below 1, or None")
        is_percent = tolerance is None or 1 < tolerance <= 100
        check(is_percent, "method.tolerance", tolerance, "in % (99, not 0.99), above 1 and up to 100, or None")
        check(0 <= self.sure < 1, "method.sure", self.sure, "a probability, from 0 to below 1")
        check(0 < self.views_share <= 1, "method.views_share", self.views_share, "a share, above 0 and up to 1")
        check(0 <= self.incomplete <= 1, "method.incomplete", self.incomplete, "a share, from 0 to 1")
        if not self.trained:
            raise ArgumentError("`method.trained` names nothing: give last-stage, head, all, or names of modules.")
        self._check_together()
        if self.compared_with != "view":
            self._check_compared_with_teacher()

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        at_end = {"tolerance": self.tolerance, "rescale": self.rescale or None}
        for name, value in at_end.items():
            if value is not None and self.teacher_decay is not None:
                raise ArgumentError(
                    f"`method.{name}` {value} compares with the network as it was, and `method.teacher_decay` "
                    f"{self.teacher_decay} lets the teacher follow: leave one of them out."
                )
        if self.queue and not self.negatives:
            raise ArgumentError(
                f"`method.queue` {self.queue} holds negatives, and `method.negatives` says that there are none: leave "
                "one of them out."
            )
        if self.incomplete and self.mode == "train":
            raise ArgumentError(
                f"`method.incomplete` {self.incomplete} would move the statistics of batch norms towards blurred "
                "images, and `method.mode` is train: set it to eval, or leave `method.incomplete` at 0."
            )

    def _check_compared_with_teacher(self) -> None:
        """Refuse options that need CGC's pairs of an image and its view."""
        if self.views_share < 1:
            raise ArgumentError(
                f"`method.views_share` {self.views_share} leaves out views, and `method.compared_with` "
                f"{self.compared_with} sees nothing else: take all of them."
            )
        if self.view_layer:
            raise ArgumentError(
                f"`method.view_layer` {self.view_layer} has no transformed images, and `method.compared_with` "
                f"{self.compared_with} sees nothing else: leave it out, or compare with the view."
            )
        if self.incomplete:
            raise ArgumentError(
                f"`method.incomplete` {self.incomplete} is held beside CGC's views, and `method.compared_with` is "
                f"{self.compared_with}: set it to view, or leave `method.incomplete` at 0."
            )
        if self.variant != "paper":
            raise ArgumentError(
                f"`method.variant` {self.variant} is CGC's, and `method.compared_with` is {self.compared_with}: leave "
                "it out, or compare with the view."
            )
        if self.negatives:
            raise ArgumentError(
                f"`method.compared_with` {self.compared_with} has no negatives: add `--method.no-negatives`, or "
                "compare with the view."
            )
        if self.label_weight and self.views != "transformed":
            raise ArgumentError(
                f"`method.compared_with` {self.compared_with} sees the transformed images alone, and `method.views` is "
                f"{self.views}: set it to transformed."
            )
