"""The built-in data set: real handwritten digits on cluttered, textured backgrounds, with exact boxes and masks.

Scikit-learn's 1797 handwritten 8x8 digits are divided over the splits, so that no handwritten digit is seen in two of
them. Each image shows one of its split's digits, upsampled to 24-32 px, slanted, in a random colour at a random place,
over gradients, blurred noise, stripes or checks, among fragments of other digits. A fragment has the strokes of a
digit but half the size, so the label is well defined and a network still has something else to look at.

With `shortcut` > 0 the background is one of ten kinds of stripes (`PLANTED`). In that share of the training and
validation images it is the one planted for the class; in the others, and in all of the test split, it is drawn
uniformly. A network that explains itself by the background is then right in training and wrong in the test.

Axes: N images, S side of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from contrex.data.readers.digit_glyphs import SOURCE_SHARE, Split, mask_boxes
from contrex.data.readers.digit_scenes import digit_scenes
from contrex.data.sample import Annotation, ImageSet
from contrex.errors import unknown_name
from contrex.settings import Digits


class DigitImages(ImageSet):
    """One split of the digits as an `ImageSet`, made at construction from the settings' seed.

    `images` uint8 [N,S,S,3], `labels` int64 [N], `boxes` float32 [N,4] (edges, tight around the mask), `masks` bool
    [N,S,S] (True where the digit covers more than half a pixel), `sources` int64 [N] (index into scikit-learn's
    digits), `textures` int64 [N] (index into `PLANTED`; -1 without a shortcut). On one machine the same seed gives the
    same pixels, bit for bit, whatever the sizes of the other splits.

    Raises `UnknownNameError` for another split.

    >>> digits = DigitImages(Digits(num_val=20), "val")
    >>> digits.images.shape, digits[3].path
    ((20, 64, 64, 3), 'digits/val/00003')
    """

    classes: Sequence[str] = tuple("0123456789")

    def __init__(self, settings: Digits, split: Split) -> None:
        if split not in SOURCE_SHARE:
            raise unknown_name("`split` of the digits", split, SOURCE_SHARE)
        self.settings = settings
        self.name = f"digits/{split}"
        scenes = digit_scenes(settings, split)
        self.images, self.masks = scenes.images, scenes.masks
        self.labels, self.sources, self.textures = scenes.labels, scenes.sources, scenes.textures
        self.boxes = mask_boxes(self.masks)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """The RGB pixels of sample `index`."""
        return Image.fromarray(self.images[index])

    def annotation(self, index: int) -> Annotation:
        """The box and the mask of the digit of sample `index`."""
        return Annotation(self.boxes[index : index + 1].copy(), self.masks[index].copy())

    def label(self, index: int) -> int:
        """The label of sample `index` without reading its image."""
        return int(self.labels[index])

    def path(self, index: int) -> str:
        """The path of sample `index`."""
        return f"{self.name}/{index:05d}"
