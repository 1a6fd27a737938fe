"""The settings of data sets: a dataclass for each, which says how its images are read and how its folder is known.

Fields that several of them share are in classes without a reader: `Stored`, `Limited`, `Skipping`, `HeldBack` and
`Photos`.
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
"""The least height of a digit, in pixels: that of the original images."""


@dataclass(frozen=True, kw_only=True)
class Data(Family):
    """The settings of a data set. Each kind names its reader, a `contrex.data.ImageSet`."""

    is_family: ClassVar[bool] = True

    marks: ClassVar[Mapping[str, str]] = {}
    """The prefixes of PREFIX:PATH that name it, each with what its folder is known by, in words. The reader looks for
    it (`ImageSet.recognises`), unless the words are empty."""
    generality: ClassVar[int] = 0
    """How general its marks are: the more they fit folders of other data sets too, the later they are looked for."""

    image_size: int = 224
    """Height and width of the images that the network sees, in pixels."""

    def __post_init__(self) -> None:
        check_at_least(1, "data", image_size=self.image_size)

    @property
    def short_side(self) -> int:
        """The length of an image's shorter side when the central square is cut out."""
        return self.image_size

    @property
    def location(self) -> Path | None:
        """The folder or name that it is read from; None for built-in data."""
        return None

    @property
    def prefix(self) -> str:
        """The part before its path on the command line: a prefix, or FILE.py:NAME."""
        return next(iter(self.marks), None) or outside_name(type(self))

    @property
    def command_name(self) -> str:
        """Its name on the command line, without options: PREFIX:PATH, FILE.py:NAME:PATH, or `digits`."""
        return ":".join(part for part in (self.prefix, str(self.location or "")) if part)


# --- what several data sets share -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored(Data):
    """Data sets that lie on a disk."""

    path: Path
    """The folder with the data set. For a published one: what its archive unpacks to, or the folder above it."""

    @property
    def location(self) -> Path | None:
        """The folder or name that it is read from."""
        return self.path

    @classmethod
    def at(cls, path: Path, prefix: str) -> Stored:
        """The default settings for the data set at `path`; a kind with several prefixes is told which by `prefix`."""
        return cls(path)


@dataclass(frozen=True, kw_only=True)
class Limited(Data):
    """Data sets of which a part can be read."""

    limit_per_class: int | None = None
    """Use only the first images of each class, in the order of the data set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, "data", limit_per_class=self.limit_per_class)


@dataclass(frozen=True, kw_only=True)
class Skipping(Data):
    """Data sets of files, of which some may be damaged."""

    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an image that is missing or cannot be read: stop with its path, or leave it out, count it and
    list it."""


@dataclass(frozen=True, kw_only=True)
class HeldBack(Data):
    """Data sets that were published as a training and a test part."""

    val_share: float = 0.0
    """Share of each class's training images that is kept back as `val`. With 0 all are trained on, and `val` is the
    test split: the best checkpoint is then chosen on the test images."""
    val_seed: int = 0
    """The seed that decides which training images are kept back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.val_share < 1, "data.val_share", self.val_share, "a share of the images, from 0 to below 1")
        check_at_least(0, "data", val_seed=self.val_seed)


@dataclass(frozen=True, kw_only=True)
class Photos(Limited, Stored):
    """Data sets of images of any size."""

    resize: int = 256
    """Length of an image's shorter side, in pixels, before its central `image_size` square is cut out."""

    def __post_init__(self) -> None:
        check_square(self.image_size, self.resize)
        super().__post_init__()

    @property
    def short_side(self) -> int:
        """The length of an image's shorter side when the central square is cut out."""
        return self.resize


@dataclass(frozen=True, kw_only=True)
class FineGrained(Skipping, Photos):
    """Photos of classes that look alike, in the folders that the published archive unpacks to."""


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
    """How many fragments of other digits are scattered over the background."""
    shortcut: float = 0.0
    """Share of the training and validation images whose background texture gives the class away; in the test split it
    never does."""
    seed: int = 0
    """The seed of the images: the same seed gives the same pixels."""

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
    """Whether the maxima in `boxes.csv` are the last pixel inside the box, as in Tiny-ImageNet, and not its edge."""
    box_kinds: tuple[str, ...] = ()
    """Use only boxes with one of these in the column `kind`; empty uses all."""
    trimaps: Path | None = None
    """A folder below `path` with trimaps (1 object, 2 background, 3 border): NAME.png or CLASS/NAME.png for an
    image."""

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
    """`cifar-10-batches-py` or `cifar-100-python`, the folder above it, or a folder with the two npz files."""
    image_size: int = field(default=32, kw_only=True)
    """Height and width of the images that the network sees, in pixels; other sizes are resized from 32."""


@dataclass(frozen=True)
class TinyImageNet(Skipping, Limited, Stored):
    """Tiny-ImageNet as its archive unpacks: `wnids.txt`, `words.txt`, `train/` and `val/`, with its boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.tiny_imagenet:TinyImageNetImages"
    marks: ClassVar[Mapping[str, str]] = {"tiny-imagenet": "wnids.txt and words.txt"}

    image_size: int = field(default=64, kw_only=True)
    """Height and width of the images that the network sees, in pixels; other sizes are resized from 64."""


@dataclass(frozen=True)
class ImageNet(Skipping, Photos):
    """ImageNet (ILSVRC 2012): `train/` and `val/` with a folder per class, or Kaggle's archive; boxes if it has
    some."""

    implementation: ClassVar[str] = "contrex.data.readers.imagenet:ImageNetImages"
    marks: ClassVar[Mapping[str, str]] = {
        "imagenet": "ILSVRC/Data/CLS-LOC/, or train/ and val/ with class folders such as n01440764"
    }
    generality: ClassVar[int] = 1

    classes: Path | None = None
    """A file that lists the class folders to read, one a line, such as the lists of ImageNet-100; None reads all."""


@dataclass(frozen=True)
class CUB200(TrainTest):
    """CUB-200-2011: 200 species of birds, with boxes, and with segmentations if they are unpacked too."""

    implementation: ClassVar[str] = "contrex.data.readers.cub:CUB200Images"
    marks: ClassVar[Mapping[str, str]] = {"cub": "image_class_labels.txt"}


@dataclass(frozen=True)
class FGVCAircraft(FineGrained):
    """FGVC-Aircraft (2013b): 100 variants of aircraft, with boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.aircraft:FGVCAircraftImages"
    marks: ClassVar[Mapping[str, str]] = {"aircraft": "data/images_box.txt"}

    level: Literal["variant", "family", "manufacturer"] = "variant"
    """What the classes are: 100 variants, 70 families or 30 manufacturers."""
    train_on: Literal["trainval", "train"] = "trainval"
    """Train on the published training and validation images (`val` is then the test split), or on the training
    images."""
    remove_banner: bool = False
    """Cut off the lowest 20 pixels, which hold a copyright notice, as the data set's authors ask."""


@dataclass(frozen=True)
class StanfordCars(TrainTest):
    """Stanford Cars-196, with boxes: `cars_train`, `cars_test` and `devkit`, or `car_ims` and `cars_annos.mat`."""

    implementation: ClassVar[str] = "contrex.data.readers.cars:StanfordCarsImages"
    marks: ClassVar[Mapping[str, str]] = {"cars": "devkit/cars_meta.mat or cars_annos.mat"}


@dataclass(frozen=True)
class Flowers102(FineGrained):
    """Oxford Flowers-102, with segmentations if they are unpacked too."""

    implementation: ClassVar[str] = "contrex.data.readers.flowers:Flowers102Images"
    marks: ClassVar[Mapping[str, str]] = {"flowers": "setid.mat"}

    train_on: Literal["trainval", "train", "test"] = "trainval"
    """The published images to train on: training and validation (2040; `val` is then the test split), training only
    (1020), or test (6149) with the training images to measure on, an exchange that some papers made."""


@dataclass(frozen=True)
class Food101(TrainTest):
    """Food-101: 101 dishes, without boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.food:Food101Images"
    marks: ClassVar[Mapping[str, str]] = {"food": "meta/classes.txt"}


@dataclass(frozen=True)
class OxfordPets(TrainTest):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, with trimaps as masks."""

    implementation: ClassVar[str] = "contrex.data.readers.oxford_pets:OxfordPetsImages"
    marks: ClassVar[Mapping[str, str]] = {"pets": "annotations/trimaps/"}

    boxes: Literal["body", "head"] = "body"
    """The box around the object of the trimap, or the published box of the head, which test images do not have."""
    border: Literal["object", "background"] = "object"
    """What the border of the trimap counts as; it is a few pixels along the outline, and fur."""


@dataclass(frozen=True)
class UnRel(Skipping, Photos):
    """UnRel: unusual relations with ImageNet's classes, in `images/` and `annotations.mat`. Its only split is
    `test`."""

    implementation: ClassVar[str] = "contrex.data.readers.unrel:UnRelImages"
    marks: ClassVar[Mapping[str, str]] = {"unrel": "annotations.mat and images/"}

    categories: tuple[str, ...] = ()
    """Use only these categories; empty uses all that have classes of ImageNet."""


@dataclass(frozen=True)
class Detection(Skipping, Photos):
    """Detection data in the layout of Pascal VOC or COCO: a sample for each category of an image, with its boxes."""

    implementation: ClassVar[str] = "contrex.data.readers.detection:DetectionImages"
    marks: ClassVar[Mapping[str, str]] = {
        "voc": "JPEGImages/ and Annotations/",
        "coco": "annotations/instances_*.json",
    }

    layout: Literal["voc", "coco"] | None = None
    """The layout; None finds out."""
    categories: tuple[str, ...] = ()
    """Use only samples of these categories; the classes stay the same."""
    difficult: bool = False
    """Also use objects that VOC marks as difficult."""
    crowd: bool = False
    """Also use COCO's boxes around crowds."""

    @property
    def prefix(self) -> str:
        """The prefix of its layout; empty if the layout is to be found out."""
        return self.layout or ""

    @classmethod
    def at(cls, path: Path, prefix: str) -> Detection:
        """The default settings for the data set at `path`, in the layout that `prefix` names."""
        return cls(path, layout="voc" if prefix == "voc" else "coco")


@dataclass(frozen=True)
class HuggingFace(Photos):
    """Data sets of Hugging Face `datasets` (pip install "contrex[hf]"): a folder, or a name in its cache."""

    implementation: ClassVar[str] = "contrex.data.readers.hugging_face:HuggingFaceImages"
    marks: ClassVar[Mapping[str, str]] = {"hf": "dataset_dict.json or state.json"}

    path: Path
    """A folder that `datasets` can load, or a name such as `uoft-cs/cifar10`."""
    config: str | None = None
    """The configuration of the data set; None is its only or default one."""
    revision: str | None = None
    """The version of a named data set: a branch, tag or commit; None is the main branch."""
    splits: dict[str, str] = field(default_factory=dict)
    """The names that the data set has for splits, such as `val validation`; other splits keep their name."""
    image: str = "image"
    """The column with the images."""
    label: str = "label"
    """The column with the labels: classes with names, or whole numbers from 0."""
    download: bool = False
    """Download what is not in the cache; without this option nothing is downloaded."""


@dataclass(frozen=True)
class Shards(Skipping, Photos):
    """Tar archives in WebDataset's layout: images with `.cls` or `.json` beside them in `PATH/SPLIT-*.tar`."""

    implementation: ClassVar[str] = "contrex.data.readers.shards:ShardImages"
    marks: ClassVar[Mapping[str, str]] = {"shards": "SPLIT-*.tar"}

    path: Path
    """The folder with the archives, and perhaps a `classes.txt`."""
    pattern: str = "{split}-*.tar"
    """The names of a split's archives below `path`, with * and ?; `{split}` stands for the split."""

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
    further: tuple[Path, ...] = field(default=(), kw_only=True)
    """Further folders with photos."""
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


# From globals and not __subclasses__: in the order of this file, and without kinds from users' files.
_OWN = [one for one in list(globals().values()) if isinstance(one, type) and issubclass(one, Data)]

DATA_PREFIXES: dict[str, type[Data]] = {prefix: kind for kind in _OWN for prefix in kind.marks}
"""The kinds of data by their prefixes in PREFIX:PATH; see `contrex.data.named`."""
