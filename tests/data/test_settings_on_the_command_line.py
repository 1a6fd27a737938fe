"""Every kind of data set in a recipe: its own fields are the options of `contrex train`, and survive a saved recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contrex.cli.options import parsed as options_of
from contrex.cli.train import Train
from contrex.errors import ArgumentError
from contrex.recipes import recipe_named
from contrex.records import from_plain, to_plain
from contrex.settings import Augmentation, Cifar, Data, FGVCAircraft, Folder, Recipe, TinyImageNet
from sampling import sampled


def parsed(data: Data, *words: str) -> Recipe:
    default = Train(replace(recipe_named("digits_cgc"), data=data))
    return options_of(Train, "train somewhere", words, default=default).recipe


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("data", "words", "expected"),
    [
        (
            Cifar(Path("data/cifar")),
            ("--data.path", "elsewhere", "--data.val-share", "0.2", "--data.val-seed", "3"),
            Cifar(Path("elsewhere"), val_share=0.2, val_seed=3),
        ),
        (
            Cifar(Path("data/cifar"), limit_per_class=5),
            ("--data.image-size", "64", "--data.limit-per-class", "None"),
            Cifar(Path("data/cifar"), image_size=64),
        ),
        (
            TinyImageNet(Path("data/tiny")),
            ("--data.on-bad-image", "skip", "--data.limit-per-class", "7"),
            TinyImageNet(Path("data/tiny"), on_bad_image="skip", limit_per_class=7),
        ),
        (
            FGVCAircraft(Path("data/fgvc-aircraft-2013b")),
            ("--data.path", "planes", "--data.level", "family", "--data.remove-banner", "--data.resize", "300"),
            FGVCAircraft(Path("planes"), level="family", remove_banner=True, resize=300),
        ),
        (
            Folder(Path("data/pets")),
            ("--data.trimaps", "trimaps"),
            Folder(Path("data/pets"), trimaps=Path("trimaps")),
        ),
    ],
)
def test_fields_are_options(data: Data, words: tuple[str, ...], expected: Data) -> None:
    recipe = parsed(data, *words)
    assert recipe.data == expected
    assert from_plain(to_plain(recipe), Recipe) == recipe


def test_colours_are_options() -> None:
    words = ("--augmentation.color-jitter", "0.4", "0.3", "0.2", "0.1", "--augmentation.grayscale", "0.2")
    recipe = parsed(Cifar(Path("cifar")), *words)
    asked = replace(recipe_named("digits_cgc").augmentation, color_jitter=(0.4, 0.3, 0.2, 0.1), grayscale=0.2)
    assert recipe.augmentation == asked
    assert from_plain(to_plain(asked), Augmentation) == asked


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"`data.val_share` must be a share"):
        parsed(Cifar(Path("cifar")), "--data.val-share", "1.5")
    with pytest.raises(ArgumentError, match=r"`augmentation.color_jitter` must be strengths"):
        parsed(Cifar(Path("cifar")), "--augmentation.color-jitter", "0", "0", "0", "0.6")
