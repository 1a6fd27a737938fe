"""The data sets: a dataclass for each, with how its images are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contrex.settings.ranges import check, check_at_least, check_square

SMALLEST_DIGIT = 8
"""Least height of a digit in pixels: that of its source."""


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
        check_at_least(0, "data", **counts, num_clutter=self.num_clutter, seed=self.seed)
        check_at_least(SMALLEST_DIGIT, "data", image_size=self.image_size)
        check(0 <= self.shortcut <= 1, "data.shortcut", self.shortcut, "a share of the images, from 0 to 1")
        smallest, largest = self.digit_size
        check(
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
        check_at_least(1, "data", resize=self.resize, limit_per_class=self.limit_per_class)
        check(
            1 <= self.image_size <= self.resize,
            "data.image_size",
            self.image_size,
            f"from 1 to `data.resize` ({self.resize}), which it is cut out of",
        )
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        check(not repeated, "data.classes", f"{', '.join(repeated)} more than once", "each folder's name once")


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
        check_at_least(1, "data", image_size=self.image_size, limit_per_class=self.limit_per_class)
        check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        check_at_least(0, "data", val_seed=self.val_seed)


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
        check_at_least(1, "data", image_size=self.image_size, limit_per_class=self.limit_per_class)


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
        check_at_least(1, "data", resize=self.resize, limit_per_class=self.limit_per_class)
        check(
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
        check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        check_at_least(0, "data", val_seed=self.val_seed)


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
        check_square(self.image_size, self.resize)
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


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
        check_square(self.image_size, self.resize)
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


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
        check_square(self.image_size, self.resize)
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


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
        check_square(self.image_size, self.resize)
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


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
        check_square(self.image_size, self.resize)
        check_at_least(1, "data", limit_per_class=self.limit_per_class)
        rest = self.pattern.replace("{split}", "")
        plain = rest != self.pattern and not set("{}") & set(rest) and not rest.startswith("/") and ".." not in rest
        check(plain, "data.pattern", self.pattern, "archives below `path`, with {split} and no other braces")


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
