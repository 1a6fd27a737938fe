"""The data sets: a dataclass for each, with how its images are read, and how its folder is known.

What several of them share stands once, in classes without a reader of their own: `Stored`, `Limited`, `Skipping`,
`HeldBack` and `Photos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from contrex.outside import outside_name
from contrex.settings.family import Family
from contrex.settings.ranges import check, check_at_least, check_square

SMALLEST_DIGIT = 8
"""Least height of a digit in pixels: that of its source."""


@dataclass(frozen=True, kw_only=True)
class Data(Family):
    """The settings of a data set. Each kind of them names its reader, a `contrex.data.ImageSet`."""

    is_family: ClassVar[bool] = True

    marks: ClassVar[Mapping[str, str]] = {}
    """What its folder is known by, in words, for each prefix that stands for it in PREFIX:PATH; the reader looks for it
    (`ImageSet.recognises`). Empty words are not looked for."""
    generality: ClassVar[int] = 0
    """How much its marks also fit the folders of other data sets: the more, the later they are looked for."""

    image_size: int = 224
    """Height and width that the network sees, in pixels."""

    def __post_init__(self) -> None:
        check_at_least(1, "data", image_size=self.image_size)

    @property
    def short_side(self) -> int:
        """The length of an image's shorter side when the central square is cut out."""
        return self.image_size

    @property
    def location(self) -> Path | None:
        """Where it is read from; None for what is built in."""
        return None

    @property
    def prefix(self) -> str:
        """What stands before its path on the command line: its prefix, or FILE.py:NAME."""
        return next(iter(self.marks), None) or outside_name(type(self))

    @property
    def command_name(self) -> str:
        """How it is named on the command line, but for its options: PREFIX:PATH, FILE.py:NAME:PATH, `digits`."""
        return ":".join(part for part in (self.prefix, str(self.location or "")) if part)


# --- what several data sets share -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored(Data):
    """A data set that lies on a disk."""

    path: Path
    """The folder with the data set: of a published one what its archive unpacks to, or the folder above it."""

    @property
    def location(self) -> Path | None:
        """Where it is read from."""
        return self.path

    @classmethod
    def at(cls, path: Path, prefix: str) -> Stored:
        """The settings of the data set at `path`, with their defaults; `prefix` tells which, where it has several."""
        return cls(path)


@dataclass(frozen=True, kw_only=True)
class Limited(Data):
    """A data set of which a part can be read."""

    limit_per_class: int | None = None
    """Use only the first images of each class, in the order of the data set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True, kw_only=True)
class Skipping(Data):
    """A data set of files, of which some may be damaged."""

    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable or missing image: stop with its path, or leave it out, count it and list it."""


@dataclass(frozen=True, kw_only=True)
class HeldBack(Data):
    """A data set that was published as a training and a test part."""

    val_share: float = 0.0
    """Share of each class's training images kept back as `val`; 0 trains on all of them, and `val` is the test split:
    the best checkpoint is then chosen on the test images."""
    val_seed: int = 0
    """Which training images are kept back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        check_at_least(0, "data", val_seed=self.val_seed)


@dataclass(frozen=True, kw_only=True)
class Photos(Limited, Stored):
    """A data set of images of any size."""

    resize: int = 256
    """Length of the image's shorter side before the central `image_size` square is cut out."""

    def __post_init__(self) -> None:
        check_square(self.image_size, self.resize)
        super().__post_init__()

    @property
    def short_side(self) -> int:
        """The length of an image's shorter side when the central square is cut out."""
        return self.resize


@dataclass(frozen=True, kw_only=True)
class FineGrained(Skipping, Photos):
    """Photos of classes that look alike, read as their archive unpacks."""


@dataclass(frozen=True, kw_only=True)
class TrainTest(HeldBack, FineGrained):
    """Fine-grained data sets that were published as a training and a test part."""


# --- the data sets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits(Data):
    """The built-in set: real handwritten digits on cluttered, textured backgrounds, with exact boxes and masks."""

    implementation: ClassVar[str] = "contrex.data.readers.digits:DigitImages"
    marks: ClassVar[Mapping[str, str]] = {"digits": ""}

    num_train: int = 3900
    num_val: int = 400
    num_test: int = 1000
    image_size: int = field(default=64, kw_only=True)
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
class Folder(Skipping, Photos):
    """Image folders `PATH/split/class/*.jpg`, with an optional `boxes.csv`, `labels.csv` and `classes.txt`."""

    implementation: ClassVar[str] = "contrex.data.readers.folder:FolderImages"
    marks: ClassVar[Mapping[str, str]] = {"folder": "SPLIT/CLASS/*.jpg"}
    generality: ClassVar[int] = 2

    classes: tuple[str, ...] = ()
    """Read only these class folders, in this order; empty reads all, sorted by name."""
    inclusive_boxes: bool = False
    """Whether the maxima of `boxes.csv` are the last pixel inside the box (Tiny-ImageNet) instead of its edge."""
    box_kinds: tuple[str, ...] = ()
    """Use only boxes whose `kind` column holds one of these; empty uses all."""
    trimaps: Path | None = None
    """Folder below `path` with trimaps (1 object, 2 background, 3 border): NAME.png or CLASS/NAME.png for an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        check(not repeated, "data.classes", f"{', '.join(repeated)} more than once", "each folder's name once")


@dataclass(frozen=True)
class Cifar(HeldBack, Limited, Stored):
    """CIFAR-10 or CIFAR-100 (its 100 fine classes): the published Python folders, or `train.npz` and `test.npz`."""

    implementation: ClassVar[str] = "contrex.data.readers.cifar:CifarImages"
    marks: ClassVar[Mapping[str, str]] = {"cifar": "cifar-10-batches-py, cifar-100-python, train.npz or test.npz"}

    path: Path
    """`cifar-10-batches-py` or `cifar-100-python`, the folder that holds it, or one with the two npz files."""
    image_size: int = field(default=32, kw_only=True)
    """Height and width that the network sees, in pixels; other sizes are resized from 32."""


@dataclass(frozen=True)
class TinyImageNet(Skipping, Limited, Stored):
    """Tiny-ImageNet as its archive unpacks: `wnids.txt`, `words.txt`, `train/` and `val/`, with its boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.tiny_imagenet:TinyImageNetImages"
    marks: ClassVar[Mapping[str, str]] = {"tiny-imagenet": "wnids.txt and words.txt"}

    image_size: int = field(default=64, kw_only=True)
    """Height and width that the network sees, in pixels; other sizes are resized from 64."""


@dataclass(frozen=True)
class ImageNet(Skipping, Photos):
    """ImageNet (ILSVRC 2012): `train/` and `val/` with a folder per class, or Kaggle's archive; boxes where it has
    them."""

    implementation: ClassVar[str] = "contrex.data.readers.imagenet:ImageNetImages"
    marks: ClassVar[Mapping[str, str]] = {
        "imagenet": "ILSVRC/Data/CLS-LOC/, or train/ and val/ with class folders such as n01440764"
    }
    generality: ClassVar[int] = 1

    classes: Path | None = None
    """File with the class folders to read, one a line, as the lists of ImageNet-100 are; None reads all of them."""


@dataclass(frozen=True)
class CUB200(TrainTest):
    """CUB-200-2011: 200 species of birds, with its boxes, and its segmentations where they are unpacked too."""

    implementation: ClassVar[str] = "contrex.data.readers.cub:CUB200Images"
    marks: ClassVar[Mapping[str, str]] = {"cub": "image_class_labels.txt"}


@dataclass(frozen=True)
class FGVCAircraft(FineGrained):
    """FGVC-Aircraft (2013b): 100 variants of aircraft, with its boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.aircraft:FGVCAircraftImages"
    marks: ClassVar[Mapping[str, str]] = {"aircraft": "data/images_box.txt"}

    level: Literal["variant", "family", "manufacturer"] = "variant"
    """What the classes are: 100 variants, 70 families or 30 manufacturers."""
    train_on: Literal["trainval", "train"] = "trainval"
    """Train on the published training and validation images, `val` being the test split, or on the former alone."""
    remove_banner: bool = False
    """Cut off the lowest 20 pixels, which hold a copyright notice, as the data set's authors ask."""


@dataclass(frozen=True)
class StanfordCars(TrainTest):
    """Stanford Cars-196, with its boxes: `cars_train`, `cars_test` and `devkit`, or `car_ims` and `cars_annos.mat`."""

    implementation: ClassVar[str] = "contrex.data.readers.cars:StanfordCarsImages"
    marks: ClassVar[Mapping[str, str]] = {"cars": "devkit/cars_meta.mat or cars_annos.mat"}


@dataclass(frozen=True)
class Flowers102(FineGrained):
    """Oxford Flowers-102, with its segmentations where they are unpacked too."""

    implementation: ClassVar[str] = "contrex.data.readers.flowers:Flowers102Images"
    marks: ClassVar[Mapping[str, str]] = {"flowers": "setid.mat"}

    train_on: Literal["trainval", "train", "test"] = "trainval"
    """The published images to train on: training and validation (2040, `val` being the test split), training alone
    (1020), or test (6149), measured on the training images: the exchange that some papers made."""


@dataclass(frozen=True)
class Food101(TrainTest):
    """Food-101: 101 dishes, without boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.food:Food101Images"
    marks: ClassVar[Mapping[str, str]] = {"food": "meta/classes.txt"}


@dataclass(frozen=True)
class OxfordPets(TrainTest):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, with its trimaps as masks."""

    implementation: ClassVar[str] = "contrex.data.readers.oxford_pets:OxfordPetsImages"
    marks: ClassVar[Mapping[str, str]] = {"pets": "annotations/trimaps/"}

    boxes: Literal["body", "head"] = "body"
    """The box around the trimap's object, or the published boxes of heads, which the test images lack."""
    border: Literal["object", "background"] = "object"
    """What the trimap's border counts as: a few pixels along the outline, and fur."""


@dataclass(frozen=True)
class UnRel(Skipping, Photos):
    """UnRel, unusual relations, with ImageNet's classes: `images/` and `annotations.mat`; its one split is `test`."""

    implementation: ClassVar[str] = "contrex.data.readers.unrel:UnRelImages"
    marks: ClassVar[Mapping[str, str]] = {"unrel": "annotations.mat and images/"}

    categories: tuple[str, ...] = ()
    """Use only these categories; empty uses every one that has classes of ImageNet."""


@dataclass(frozen=True)
class Detection(Skipping, Photos):
    """A detection set in the layout of Pascal VOC or of COCO: one sample for each category of an image, with its
    boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.detection:DetectionImages"
    marks: ClassVar[Mapping[str, str]] = {
        "voc": "JPEGImages/ and Annotations/",
        "coco": "annotations/instances_*.json",
    }

    layout: Literal["voc", "coco"] | None = None
    """Whose layout it is; None finds out."""
    categories: tuple[str, ...] = ()
    """Use only samples of these categories; the classes stay those of all."""
    difficult: bool = False
    """Use objects that VOC marks as difficult too."""
    crowd: bool = False
    """Use COCO's boxes around crowds too."""

    @property
    def prefix(self) -> str:
        """That of its layout; none where the layout is found out."""
        return self.layout or ""

    @classmethod
    def at(cls, path: Path, prefix: str) -> Detection:
        """The settings of the data set at `path`, in the layout that `prefix` is of."""
        return cls(path, layout="voc" if prefix == "voc" else "coco")


@dataclass(frozen=True)
class HuggingFace(Photos):
    """A data set of Hugging Face `datasets` (pip install "contrex[hf]"): a folder, or a name that is in its cache."""

    implementation: ClassVar[str] = "contrex.data.readers.hugging_face:HuggingFaceImages"
    marks: ClassVar[Mapping[str, str]] = {"hf": "dataset_dict.json or state.json"}

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
    download: bool = False
    """Fetch what is not in the cache; without it the network is never used."""


@dataclass(frozen=True)
class Shards(Skipping, Photos):
    """Tar archives in WebDataset's layout: images with `.cls` or `.json` beside them in `PATH/SPLIT-*.tar`."""

    implementation: ClassVar[str] = "contrex.data.readers.shards:ShardImages"
    marks: ClassVar[Mapping[str, str]] = {"shards": "SPLIT-*.tar"}

    path: Path
    """The folder with the archives, and perhaps a `classes.txt`."""
    pattern: str = "{split}-*.tar"
    """Names of a split's archives below `path`, with * and ?; `{split}` stands for the split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rest = self.pattern.replace("{split}", "")
        plain = rest != self.pattern and not set("{}") & set(rest) and not rest.startswith("/") and ".." not in rest
        check(plain, "data.pattern", self.pattern, "archives below `path`, with {split} and no other braces")


@dataclass(frozen=True)
class UnlabelledPhotos(Skipping, Stored):
    """Photos in a folder and in all folders below it, without labels, for methods that need none."""

    implementation: ClassVar[str] = "contrex.data.readers.unlabelled:UnlabelledImages"
    marks: ClassVar[Mapping[str, str]] = {"photos": ""}

    path: Path
    """The folder with the photos."""
    resize: int = field(default=256, kw_only=True)
    """Length of the image's shorter side before the central `image_size` square is cut out."""
    val_share: float = field(default=0.1, kw_only=True)
    """Share of the photos that are kept out as `val`, at least one."""
    val_seed: int = field(default=0, kw_only=True)
    """Which photos are kept out."""

    def __post_init__(self) -> None:
        check_square(self.image_size, self.resize)
        super().__post_init__()
        check(0 < self.val_share < 1, "data.val_share", self.val_share, "a share of the photos, between 0 and 1")
        check_at_least(0, "data", val_seed=self.val_seed)

    @property
    def short_side(self) -> int:
        """The length of an image's shorter side when the central square is cut out."""
        return self.resize


# by globals, not __subclasses__: in the order in which they stand here, and without kinds from files
_OWN = [one for one in list(globals().values()) if isinstance(one, type) and issubclass(one, Data)]

DATA_PREFIXES: dict[str, type[Data]] = {prefix: kind for kind in _OWN for prefix in kind.marks}
"""What contrex's own PREFIX:PATH names on the command line; see `contrex.data.named`."""
