"""What a run is asked to do: frozen dataclasses, and every default of contrex in one of their fields.

This module imports no torch, so the command line can show, check and override a recipe before anything heavy is
loaded. The parts of a run read their own dataclass; nothing else carries options.

A value outside its range raises `ArgumentError` as soon as the dataclass is made, with the field's name on the command
line of `contrex train`, such as `training.epochs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from contrex.errors import ArgumentError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Views = Literal["both", "plain", "transformed"]
Variant = Literal["paper", "published-code"]
Stem = Literal["built-in", "cifar"]
Layout = Literal["plain", "swav", "moco", "dino", "dino-student", "lightning"]

SMALLEST_DIGIT = 8
"""Least height of a digit in pixels: that of its source."""


# --- the ranges -----------------------------------------------------------------------------------------------------


def _check(ok: bool, name: str, value: object, must: str) -> None:
    if not ok:
        raise ArgumentError(f"`{name}` must be {must}, got {value}.")


def _check_at_least(least: int, group: str, **values: float | None) -> None:
    """Every value is None or a finite number of at least `least`."""
    for name, value in values.items():
        _check(value is None or least <= value < math.inf, f"{group}.{name}", value, f"at least {least}")


def _check_positive(group: str, **values: float | None) -> None:
    """Every value is None or a finite number above 0."""
    for name, value in values.items():
        _check(value is None or 0 < value < math.inf, f"{group}.{name}", value, "positive")


def _check_square(image_size: int, resize: int) -> None:
    """The square that a network sees is cut out of the resized image."""
    _check_at_least(1, "data", resize=resize)
    must = f"from 1 to `data.resize` ({resize}), which it is cut out of"
    _check(1 <= image_size <= resize, "data.image_size", image_size, must)


# --- the data -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """The built-in set: real handwritten digits on cluttered, textured backgrounds, with exact boxes and masks."""

    num_train: int = 3900
    num_val: int = 400
    num_test: int = 1000
    image_size: int = 64
    """Height and width of the images in pixels."""
    digit_size: tuple[int, int] = (24, 32)
    """Smallest and largest height of a digit in pixels."""
    num_clutter: int = 8
    """Fragments of other digits scattered over the background."""
    shortcut: float = 0.0
    """Share of the *training* and validation images whose background texture is the one planted for their class; in the
    test split textures never depend on the class."""
    seed: int = 0
    """Seed of the generator: the same seed gives the same pixels."""

    def __post_init__(self) -> None:
        counts = {"num_train": self.num_train, "num_val": self.num_val, "num_test": self.num_test}
        _check_at_least(0, "data", **counts, num_clutter=self.num_clutter, seed=self.seed)
        _check_at_least(SMALLEST_DIGIT, "data", image_size=self.image_size)
        _check(0 <= self.shortcut <= 1, "data.shortcut", self.shortcut, "a share of the images, from 0 to 1")
        smallest, largest = self.digit_size
        _check(
            SMALLEST_DIGIT <= smallest <= largest <= self.image_size,
            "data.digit_size",
            self.digit_size,
            f"rising, from {SMALLEST_DIGIT} pixels or more to at most `data.image_size` ({self.image_size})",
        )


@dataclass(frozen=True)
class Folder:
    """Image folders `PATH/split/class/*.jpg`, with an optional `boxes.csv`, `labels.csv` and `classes.txt`."""

    path: Path
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    classes: tuple[str, ...] = ()
    """Read only these class folders, in this order; empty reads all, sorted by name."""
    inclusive_boxes: bool = False
    """Whether the maxima of `boxes.csv` are the last pixel inside the box (Tiny-ImageNet) instead of its edge."""
    box_kinds: tuple[str, ...] = ()
    """Use only boxes whose `kind` column holds one of these; empty uses all."""
    trimaps: Path | None = None
    """Folder below `path` with trimaps (1 object, 2 background, 3 border): NAME.png or CLASS/NAME.png for an image."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in name order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_at_least(1, "data", resize=self.resize, limit_per_class=self.limit_per_class)
        _check(
            1 <= self.image_size <= self.resize,
            "data.image_size",
            self.image_size,
            f"from 1 to `data.resize` ({self.resize}), which it is cut out of",
        )
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        _check(not repeated, "data.classes", f"{', '.join(repeated)} more than once", "each folder's name once")


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100 (its 100 fine classes): the published Python folders, or `train.npz` and `test.npz`."""

    path: Path
    """`cifar-10-batches-py` or `cifar-100-python`, the folder that holds it, or one with the two npz files."""
    image_size: int = 32
    """Height and width that the network sees, in pixels; other sizes are resized from 32."""
    val_share: float = 0.0
    """Share of each class's training images kept back as `val`; 0 trains on all of them, and `val` is the test split:
    the best checkpoint is then chosen on the test images, as ExCon's final runs did."""
    val_seed: int = 0
    """Which training images are kept back."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in stored order."""

    def __post_init__(self) -> None:
        _check_at_least(1, "data", image_size=self.image_size, limit_per_class=self.limit_per_class)
        _check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        _check_at_least(0, "data", val_seed=self.val_seed)


@dataclass(frozen=True)
class TinyImageNet:
    """Tiny-ImageNet as its archive unpacks: `wnids.txt`, `words.txt`, `train/` and `val/`, with its boxes."""

    path: Path
    image_size: int = 64
    """Height and width that the network sees, in pixels; other sizes are resized from 64."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in name order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_at_least(1, "data", image_size=self.image_size, limit_per_class=self.limit_per_class)


# The fine-grained data sets, read as their archives unpack.


@dataclass(frozen=True)
class FineGrained:
    """What the fine-grained data sets share."""

    path: Path
    """The folder that the archive unpacks to, or the one above it."""
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in listed order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable or missing image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_at_least(1, "data", resize=self.resize, limit_per_class=self.limit_per_class)
        _check(
            1 <= self.image_size <= self.resize,
            "data.image_size",
            self.image_size,
            f"from 1 to `data.resize` ({self.resize}), which it is cut out of",
        )


@dataclass(frozen=True)
class TrainTest(FineGrained):
    """Fine-grained data sets that were published as a training and a test part."""

    val_share: float = 0.0
    """Share of each class's training images kept back as `val`; 0 trains on all of them, and `val` is the test split:
    the best checkpoint is then chosen on the test images."""
    val_seed: int = 0
    """Which training images are kept back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        _check_at_least(0, "data", val_seed=self.val_seed)


@dataclass(frozen=True)
class CUB200(TrainTest):
    """CUB-200-2011: 200 species of birds, with its boxes, and its segmentations where they are unpacked too."""


@dataclass(frozen=True)
class FGVCAircraft(FineGrained):
    """FGVC-Aircraft (2013b): 100 variants of aircraft, with its boxes."""

    level: Literal["variant", "family", "manufacturer"] = "variant"
    """What the classes are: 100 variants, 70 families or 30 manufacturers."""
    train_on: Literal["trainval", "train"] = "trainval"
    """Train on the published training and validation images, `val` being the test split, or on the former alone."""
    remove_banner: bool = False
    """Cut off the lowest 20 pixels, which hold a copyright notice, as the data set's authors ask."""


@dataclass(frozen=True)
class StanfordCars(TrainTest):
    """Stanford Cars-196, with its boxes: `cars_train`, `cars_test` and `devkit`, or `car_ims` and `cars_annos.mat`."""


@dataclass(frozen=True)
class Flowers102(FineGrained):
    """Oxford Flowers-102, with its segmentations where they are unpacked too."""

    train_on: Literal["trainval", "train", "test"] = "trainval"
    """The published images to train on: training and validation (2040, `val` being the test split), training alone
    (1020), or test (6149), measured on the training images: the exchange that some papers made."""


@dataclass(frozen=True)
class Food101(TrainTest):
    """Food-101: 101 dishes, without boxes."""


@dataclass(frozen=True)
class OxfordPets(TrainTest):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, with its trimaps as masks."""

    boxes: Literal["body", "head"] = "body"
    """The box around the trimap's object, or the published boxes of heads, which the test images lack."""
    border: Literal["object", "background"] = "object"
    """What the trimap's border counts as: a few pixels along the outline, and fur."""


@dataclass(frozen=True)
class ImageNet:
    """ImageNet (ILSVRC 2012): `train/` and `val/` with a folder per class, or Kaggle's archive; boxes where it has
    them."""

    path: Path
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    classes: Path | None = None
    """File with the class folders to read, one a line, as the lists of ImageNet-100 are; None reads all of them."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in name order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_square(self.image_size, self.resize)
        _check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True)
class UnRel:
    """UnRel, unusual relations, with ImageNet's classes: `images/` and `annotations.mat`; its one split is `test`."""

    path: Path
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    categories: tuple[str, ...] = ()
    """Use only these categories; empty uses every one that has classes of ImageNet."""
    limit_per_class: int | None = None
    """Use only the first images of each category, in name order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_square(self.image_size, self.resize)
        _check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True)
class Detection:
    """A detection set in the layout of Pascal VOC or of COCO: one sample for each category of an image, with its
    boxes."""

    path: Path
    layout: Literal["voc", "coco"] | None = None
    """Whose layout it is; None finds out."""
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    categories: tuple[str, ...] = ()
    """Use only samples of these categories; the classes stay those of all."""
    difficult: bool = False
    """Use objects that VOC marks as difficult too."""
    crowd: bool = False
    """Use COCO's boxes around crowds too."""
    limit_per_class: int | None = None
    """Use only the first images of each category, in the order of the split."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_square(self.image_size, self.resize)
        _check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True)
class HuggingFace:
    """A data set of Hugging Face `datasets` (pip install "contrex[hf]"): a folder, or a name that is in its cache."""

    path: Path
    """A folder with a saved or loadable data set, or a name such as `uoft-cs/cifar10`."""
    config: str | None = None
    """Which configuration of the data set; None is its only or default one."""
    revision: str | None = None
    """Which version of a named data set: a branch, tag or commit; None is its main branch."""
    splits: dict[str, str] = field(default_factory=dict)
    """What the data set calls a split, e.g. `val validation`; others have the same name."""
    image: str = "image"
    """The column of the images."""
    label: str = "label"
    """The column of the labels: classes with names, or whole numbers from 0."""
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in stored order."""
    download: bool = False
    """Fetch what is not in the cache; without it the network is never used."""

    def __post_init__(self) -> None:
        _check_square(self.image_size, self.resize)
        _check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True)
class Shards:
    """Tar archives in WebDataset's layout: images with `.cls` or `.json` beside them in `PATH/SPLIT-*.tar`."""

    path: Path
    """The folder with the archives, and perhaps a `classes.txt`."""
    pattern: str = "{split}-*.tar"
    """Names of a split's archives below `path`, with * and ?; `{split}` stands for the split."""
    image_size: int = 224
    """Height and width that the network sees, in pixels."""
    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    limit_per_class: int | None = None
    """Use only the first images of each class, in stored order."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image: stop with its path, or leave it out, count it and list it."""

    def __post_init__(self) -> None:
        _check_square(self.image_size, self.resize)
        _check_at_least(1, "data", limit_per_class=self.limit_per_class)
        rest = self.pattern.replace("{split}", "")
        plain = rest != self.pattern and not set("{}") & set(rest) and not rest.startswith("/") and ".." not in rest
        _check(plain, "data.pattern", self.pattern, "archives below `path`, with {split} and no other braces")


Data = (
    Digits
    | Folder
    | Cifar
    | TinyImageNet
    | CUB200
    | FGVCAircraft
    | StanfordCars
    | Flowers102
    | Food101
    | OxfordPets
    | ImageNet
    | UnRel
    | Detection
    | HuggingFace
    | Shards
)

DATA_PREFIXES: dict[str, type[Data]] = {
    "digits": Digits,
    "folder": Folder,
    "cifar": Cifar,
    "tiny-imagenet": TinyImageNet,
    "imagenet": ImageNet,
    "cub": CUB200,
    "aircraft": FGVCAircraft,
    "cars": StanfordCars,
    "flowers": Flowers102,
    "food": Food101,
    "pets": OxfordPets,
    "unrel": UnRel,
    "voc": Detection,
    "coco": Detection,
    "hf": HuggingFace,
    "shards": Shards,
}
"""What `PREFIX:PATH` names on the command line; see `contrex.data.named`."""


@dataclass(frozen=True)
class Augmentation:
    """The random view: resized crop and horizontal flip (the transform T of CGC, section 3.1), then, where a strength
    is set, colour jitter and greyscale (SimCLR, appendix A)."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's share of the image area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width / height."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strengths of brightness, contrast, saturation and hue: factors are drawn from 1 - strength (at least 0) to
    1 + strength, the hue's turn from -strength to strength of the circle."""
    jitter_probability: float = 0.8
    """Share of the views whose colours are jittered, all four in a random order."""
    grayscale: float = 0.0
    """Probability that a view is grey."""
    where: Literal["worker", "device"] = "worker"
    """Make views in the loader's workers (crops by Pillow, antialiased) or on the training device (crops as one batched
    resample, colours image by image)."""

    def __post_init__(self) -> None:
        (low, high), (narrow, wide) = self.scale, self.ratio
        _check(0 < low <= high <= 1, "augmentation.scale", self.scale, "(low, high) with 0 < low <= high <= 1")
        _check(0 < narrow <= wide < math.inf, "augmentation.ratio", self.ratio, "(low, high) with 0 < low <= high")
        for name in ("flip", "jitter_probability", "grayscale"):
            _check(0 <= (p := getattr(self, name)) <= 1, f"augmentation.{name}", p, "a probability, from 0 to 1")
        jitter = self.color_jitter
        in_range = all(0 <= strength < math.inf for strength in jitter) and jitter[-1] <= 0.5
        _check(in_range, "augmentation.color_jitter", jitter, "strengths of at least 0, and of the hue at most 0.5")

    @property
    def recolours(self) -> bool:
        """Whether any view can change its colours."""
        return self.grayscale > 0 or (self.jitter_probability > 0 and any(self.color_jitter))


# --- the network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A classifier by name, and how its images are normalised."""

    name: str = "torchvision:resnet18"
    """`torchvision:NAME`, `timm:NAME` or `contrex:convnet`."""
    options: dict[str, str] = field(default_factory=dict)
    """Keyword arguments for the builder, e.g. `pad_type same`."""
    stem: Stem = "built-in"
    """`cifar` gives a ResNet a 3x3 first convolution of stride 1 and no max pooling, for images of 32 x 32."""
    num_classes: int | None = None
    """Number of classes; None takes the data set's when training, the weights file's otherwise."""
    weights: Path | None = None
    """A state_dict (.pth, .pt or .safetensors); None leaves the random initialisation. Nothing is downloaded."""
    layout: Layout = "plain"
    """Whose checkpoint the weights file is, as its training wrote it; what such a file has beside the encoder is left
    out by name. `plain` has the network's own names: torchvision's and timm's files, or a backbone by itself."""
    fresh: tuple[str, ...] = ()
    """Modules that keep their random initialisation although the weights file may have them, e.g. `layer4 fc`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Channel means of the input, for pixel values in [0, 1]; one value stands for all channels."""
    std: tuple[float, ...] = IMAGENET_STD
    """Channel standard deviations of the input; one value stands for all channels."""

    def __post_init__(self) -> None:
        _check_at_least(1, "model", num_classes=self.num_classes)


# --- the optimisation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Optimizer:
    """SGD or AdamW, with an optional clip of the gradient's norm."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """SGD's momentum, or AdamW's beta1."""
    nesterov: bool = False
    """Nesterov's momentum, for SGD only."""
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    """Largest norm of the whole gradient; None does not clip."""

    def __post_init__(self) -> None:
        _check_positive("optimizer", lr=self.lr, clip_norm=self.clip_norm)
        _check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "from 0 to below 1")
        _check_at_least(0, "optimizer", weight_decay=self.weight_decay)
        if self.nesterov and self.name != "sgd":
            raise ArgumentError(f"`optimizer.nesterov` is SGD's, {self.name} has none: add --optimizer.no-nesterov.")
        if self.nesterov and self.momentum == 0:
            raise ArgumentError(
                "`optimizer.nesterov` needs `optimizer.momentum` > 0: set one, or add --optimizer.no-nesterov."
            )


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, changed at every step."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Linear warm-up from 0, in epochs."""
    milestones: tuple[int, ...] = (30, 60)
    """Epochs at which the step schedule multiplies the rate by `gamma`."""
    gamma: float = 0.1
    final: float = 0.0
    """Where the cosine ends, as a share of the peak rate."""

    def __post_init__(self) -> None:
        _check_at_least(0, "schedule", warmup_epochs=self.warmup_epochs)
        rising = all(one < next_ for one, next_ in pairwise((0, *self.milestones)))
        _check(rising, "schedule.milestones", self.milestones, "rising epochs, from 1 on")
        _check_positive("schedule", gamma=self.gamma)
        _check(0 <= self.final <= 1, "schedule.final", self.final, "a share of the peak rate, from 0 to 1")


@dataclass(frozen=True)
class Training:
    """The loop: how long, how large, how exact, and when to save."""

    epochs: int = 90
    batch_size: int = 256
    """Images of one step, shared by all processes and by the parts of `accumulate`."""
    accumulate: int = 1
    """Go through each batch in this many parts, one after the other, which takes less memory; not for losses with
    negatives, which a part would have fewer of."""
    seed: int = 0
    """Seeds initialisation, order and augmentation; two runs of one seed are equal bit by bit on a CPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the network under autocast; heatmaps and losses stay float32."""
    channels_last: bool = True
    device: str = "auto"
    """`auto` takes CUDA when there is one."""
    workers: int = 0
    """Loader processes; the result does not depend on their number."""
    sync_batch_norm: bool = False
    """On several GPUs, batch norm takes its statistics over the batches of all, instead of each its own."""
    shard: bool = False
    """Each of several processes keeps a share of the weights and of the optimiser's state (FSDP2); one phase only."""
    compile: bool = False
    """torch.compile what comes before the explained layer; cross-entropy compiles all of the network."""
    checkpoint_minutes: float = 5.0
    """Write a checkpoint at the end of each epoch and whenever this much time has passed since the last one."""

    def __post_init__(self) -> None:
        _check_at_least(1, "training", epochs=self.epochs, batch_size=self.batch_size, accumulate=self.accumulate)
        _check(
            self.batch_size % self.accumulate == 0,
            "training.batch_size",
            self.batch_size,
            f"a multiple of `training.accumulate`, {self.accumulate}",
        )
        if self.compile and self.shard:
            raise ArgumentError("`training.compile` and `training.shard` are not for one run: leave one of them out.")
        _check_at_least(0, "training", seed=self.seed, workers=self.workers)
        _check(self.checkpoint_minutes >= 0, "training.checkpoint_minutes", self.checkpoint_minutes, "at least 0")


# --- the training objective -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy alone: the baseline, on the same views as the methods it is compared with."""

    views: Views = "both"
    """Classify the untransformed image, its transformed view, or both (mean)."""


@dataclass(frozen=True)
class CGC:
    """Cross-entropy + `weight` x contrastive Grad-CAM consistency (CVPR 2022)."""

    weight: float = 1.0
    """lambda: the weight of the consistency loss."""
    temperature: float = 0.5
    """tau: the temperature of the similarities."""
    variant: Variant = "paper"
    """The paper's equation, or the published code's (its negatives, and three cross-entropy terms)."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); `published-code` sums three of its own instead."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""
    queue: int = 0
    """Past heatmaps kept as extra negatives; 0 is off, as in the paper."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S (the input size in the paper)."""

    def __post_init__(self) -> None:
        _check_at_least(0, "method", weight=self.weight, queue=self.queue)
        _check_at_least(1, "method", resolution=self.resolution)
        _check_positive("method", temperature=self.temperature)


@dataclass(frozen=True)
class CGCNoNegatives:
    """Cross-entropy + `weight` x squared L2 distance of the normalised heatmaps (CGC, Table 5)."""

    weight: float = 1.0
    """lambda: the weight of the consistency loss."""
    variant: Variant = "paper"
    """Squared distance summed over pixels, or averaged over them as in the published code."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); `published-code` sums three of its own instead."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""
    resolution: int = 224
    """S: heatmaps are compared as if upsampled to S x S (the input size in the paper)."""

    def __post_init__(self) -> None:
        _check_at_least(0, "method", weight=self.weight)
        _check_at_least(1, "method", resolution=self.resolution)


@dataclass(frozen=True)
class GCC:
    """Cross-entropy + `weight` x consistency of the heatmap of an image and of a composite that holds it among three
    images of other classes (AAAI 2021)."""

    weight: float = 25.0
    """lambda: the weight of the consistency loss. It is a mean over the cells of the map: finer maps need more."""
    views: Views = "both"
    """The views that the cross-entropy sees (mean); the published code has the transformed one, which is composed."""
    layer: str | None = None
    """Layer of the heatmaps; None is the last feature map."""
    contrast: str | None = None
    """The contrast inside g: None, "mean", "max" or "weighted"."""

    def __post_init__(self) -> None:
        _check_at_least(0, "method", weight=self.weight)


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
        _check_at_least(1, "method.classifier", epochs=self.epochs)
        if self.cache_features and self.views != "plain":
            raise ArgumentError(
                "`method.classifier.cache_features` needs `method.classifier.views` plain: transformed views are new "
                "images in every epoch."
            )


@dataclass(frozen=True)
class SupCon:
    """Supervised contrastive learning of the encoder, and a linear classifier on it (ExCon, section 3)."""

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
        _check_positive("method", temperature=self.temperature, base_temperature=self.base_temperature)
        _check_at_least(1, "method", projection_dim=self.projection_dim)
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

    background: bool = False
    """ExConB: masked images that are not classified right are added as background, in denominators only."""
    starting_epoch: int = 0
    """Random views until this epoch."""
    explainer: str = "grad_cam"
    """What explains the plain image for its label: a name (contrex explainers), FILE.py:CLASS or MODULE:CLASS."""
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
        _check_at_least(0, "method", starting_epoch=self.starting_epoch)
        _check(0 <= self.threshold < 1, "method.threshold", self.threshold, "from 0 to below 1")
        if not self.labels:
            raise ArgumentError("`method.labels` must be set for ExCon: it explains each image for its label.")


Method = CrossEntropy | CGC | CGCNoNegatives | GCC | SupCon | ExCon


# --- the measurement ------------------------------------------------------------------------------------------------

Baseline = Literal["blur", "zero", "mean", "road"]
"""What removed pixels become: blurred, zero (the data set's mean colour), the image's mean, or imputed with noise."""


@dataclass(frozen=True)
class Pointing:
    """The pointing game and the stochastic one."""

    tolerance: float = 15.0
    """A point is a hit when it is less than this many pixels away from the object."""
    num_samples: int = 100
    """Points drawn from each heatmap in the stochastic game."""

    def __post_init__(self) -> None:
        _check_at_least(0, "evaluation.pointing", tolerance=self.tolerance)
        _check_at_least(1, "evaluation.pointing", num_samples=self.num_samples)


@dataclass(frozen=True)
class Infidelity:
    """Infidelity (Yeh et al. 2019) under Gaussian noise."""

    num_samples: int = 10
    noise_std: float = 0.1
    """Standard deviation of the noise, in units of the normalised input."""
    output: Literal["logit", "probability"] = "probability"
    """Of the explained class: what the heatmap is to predict."""
    normalise: bool = True
    """Scale each heatmap to its best fit first: scales of heatmaps are arbitrary."""

    def __post_init__(self) -> None:
        _check_at_least(1, "evaluation.infidelity", num_samples=self.num_samples)
        _check_positive("evaluation.infidelity", noise_std=self.noise_std)


@dataclass(frozen=True)
class MaxSensitivity:
    """Max-sensitivity (Yeh et al. 2019)."""

    num_samples: int = 10
    radius: float = 0.02
    """Of the ball that changes are drawn from, in units of the normalised input."""

    def __post_init__(self) -> None:
        _check_at_least(1, "evaluation.max_sensitivity", num_samples=self.num_samples)
        _check_positive("evaluation.max_sensitivity", radius=self.radius)


@dataclass(frozen=True)
class RelativeProbability:
    """Relative probability of the two most probable classes under masking ("Why Not Other Classes?", section 5.2)."""

    protocol: Literal["same-area", "paper", "published-code"] = "same-area"
    """Both maps keep equally many pixels, each those of its sign, or what the published code keeps; that also draws
    the blur's sigma from 10 to 20."""
    threshold: float = 0.1
    """An image counts where the probability of its second class exceeds this."""
    baselines: tuple[Literal["blur", "zero", "mean"], ...] = ("blur", "zero", "mean")
    sigma: float = 15.0
    """Of the blur, in pixels."""
    against: Literal["original", "mean", "max", "weighted"] | None = None
    """The maps that share the area; None takes the weighted contrast for original maps, the original for contrasts."""

    def __post_init__(self) -> None:
        _check(0 <= self.threshold < 1, "evaluation.relative_probability.threshold", self.threshold, "in 0..1, below 1")
        _check(bool(self.baselines), "evaluation.relative_probability.baselines", self.baselines, "one or more")
        _check_positive("evaluation.relative_probability", sigma=self.sigma)


@dataclass(frozen=True)
class GradientSign:
    """Gradient sign perturbation by the four scores ("Why Not Other Classes?", section 5.1)."""

    epsilons: tuple[float, ...] = (1e-3, 3e-3)
    """Sizes of the perturbation for pixel values in [0, 1]."""
    num_steps: int = 1

    def __post_init__(self) -> None:
        rising = all(0 < one < next_ for one, next_ in pairwise((*self.epsilons, math.inf)))
        _check(bool(self.epsilons) and rising, "evaluation.gradient_sign.epsilons", self.epsilons, "rising, above 0")
        _check_at_least(1, "evaluation.gradient_sign", num_steps=self.num_steps)


@dataclass(frozen=True)
class Embedding:
    """The picture of the features by t-SNE, and how near views are to their image."""

    num_classes: int = 5
    """Classes in the picture, at equal distances in the order of labels."""
    num_images: int = 20
    """Images of each in the picture."""

    def __post_init__(self) -> None:
        _check_at_least(1, "evaluation.embedding", num_classes=self.num_classes, num_images=self.num_images)


@dataclass(frozen=True)
class Evaluation:
    """What to measure, and by which protocol."""

    metrics: tuple[str, ...] = ("top1", "top5", "content_heatmap", "cgc_loss", "insertion_auc", "deletion_auc")
    """contrex metrics lists them."""
    split: str = "val"
    explainer: str = "grad_cam"
    layer: str | None = None
    """Layer to explain; None is the last feature map."""
    contrast: str | None = None
    """Explain the class against the others: None, "mean", "max" or "weighted"."""
    content_heatmap_protocol: Literal["native", "published", "square"] = "native"
    """`native` explains the whole image with its shorter side at the network's size, `published` at 448, `square` the
    central square that is classified, with the boxes cut at its border. The pointing games use it too."""
    region: Literal["boxes", "mask"] = "boxes"
    """Where the object is: in its boxes, or its mask."""
    pointing: Pointing = Pointing()
    insertion_step: int | None = None
    """Pixels per step of the insertion and deletion curves; None is 8 rows of the image (224 * 8 at 224)."""
    insertion_baseline: Baseline = "blur"
    """What insertion starts from."""
    deletion_baseline: Baseline = "zero"
    """What deletion ends at."""
    drop_fractions: tuple[float, ...] = (0.15, 0.30, 0.45)
    """Shares of the pixels that are kept for drop and increase."""
    infidelity: Infidelity = Infidelity()
    max_sensitivity: MaxSensitivity = MaxSensitivity()
    relative_probability: RelativeProbability = RelativeProbability()
    gradient_sign: GradientSign = GradientSign()
    equivariance_shares: tuple[float, ...] = (0.8, 0.6, 0.4, 0.2)
    """Shares of the area that crops keep for the equivariance error; a flip alone is always measured too."""
    fgsm_epsilons: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255)
    """Sizes of the attack for pixel values in [0, 1]."""
    calibration_bins: int = 15
    embedding: Embedding = Embedding()
    batch_size: int | None = None
    """Images per forward pass; None chooses by device."""
    limit: int | None = None
    """Evaluate only the first images."""
    gallery: int = 24
    """Pictures kept for the report."""
    num_bootstrap: int = 2000
    """Resamples behind each interval."""
    seed: int = 0
    """Seeds the bootstrap and everything that a metric draws."""
    checkpoint: Literal["last", "best"] = "last"
    """Which weights of a training run: the last ones, or those of the best validation accuracy."""
    workers: int = 0
    """Loader processes."""
    device: str = "auto"

    def __post_init__(self) -> None:
        repeated = len(set(self.metrics)) < len(self.metrics)
        _check(bool(self.metrics) and not repeated, "evaluation.metrics", self.metrics, "one metric or more, each once")
        least_one = {"insertion_step": self.insertion_step, "batch_size": self.batch_size, "limit": self.limit}
        counts = {"num_bootstrap": self.num_bootstrap, "calibration_bins": self.calibration_bins}
        _check_at_least(1, "evaluation", **least_one, **counts)
        _check_at_least(0, "evaluation", gallery=self.gallery, seed=self.seed, workers=self.workers)
        for name in ("drop_fractions", "equivariance_shares", "fgsm_epsilons"):
            values = getattr(self, name)
            fits = bool(values) and len(set(values)) == len(values) and all(0 < value <= 1 for value in values)
            _check(fits, f"evaluation.{name}", values, "one share or more, each once, above 0 and at most 1")


@dataclass(frozen=True)
class Recipe:
    """One whole run."""

    name: str
    data: Data
    model: Model
    method: Method
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()


def run_name(recipe: Recipe) -> str:
    """What a run of `recipe` is called: its name and its seed."""
    return f"{recipe.name}-seed{recipe.training.seed}"
