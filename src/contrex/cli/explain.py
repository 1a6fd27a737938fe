"""The command `explain`, which draws explanations of photos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from contrex import settings
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError, printable
from contrex.settings.explainer import read_explainer


@dataclass(frozen=True)
class Explain:
    """Draw why a photo is of one class and, with --contrast, not of another."""

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    run: Path | None = None
    """The folder of a trained run, instead of --model."""
    model: settings.Model = field(default_factory=settings.Model)
    explainer: tuple[str, ...] = ("grad_cam",)
    """Explainers, a row of heatmaps for each: a name (contrex explainers lists them), FILE.py:CLASS, MODULE:CLASS or
    captum:CLASS. Options stand in brackets: "rise(num_masks=500, seed=1)"."""
    layer: str | None = None
    """The layer to explain; None is the last feature map."""
    target: tuple[str, ...] = ()
    """Classes to explain, by name or index. If none are given, the most probable ones of each photo."""
    top: int | None = None
    """How many of the most probable classes to explain. Without --contrast, each has its heatmap and its weighted
    contrast."""
    contrast: tuple[str, ...] = ()
    """Contrasts, a heatmap for each: none, the other classes (mean, max, weighted), or one class by name or index."""
    task: settings.Task | None = None
    """What the logits are: a softmax over the classes (multiclass), one logit for two classes (binary), or one for each
    label (multilabel). None is binary for a classifier with one logit, else multiclass."""
    threshold: float | None = None
    """With --task multilabel, without --target and --top: labels with a probability above this are explained, at least
    the most probable one. None is 0.5."""
    classes: tuple[str, ...] = ()
    """The names of the classes, for open_clip's models a text for each: "a tabby" "a tiger cat". Or a file of them, one
    a line or `index<TAB>id<TAB>names`. Without any, the run's or the weights', or ImageNet's for 1000 classes."""
    side: int | None = None
    """The shorter side of the photo that the network sees, in pixels; nothing is cropped, but for
    networks that take squares only. None is what the run or the weights were made for, or 224."""
    output: Path = Path("explanation.png")
    """The file of the picture; its suffix names the format."""


def explain(arguments: Arguments) -> int:
    """Draw why a photo is of the class that the classifier says, and name its most probable classes."""
    options = parsed(Explain, "explain", arguments)
    if not options.photos:
        raise ArgumentError("name one photo or more: contrex explain PHOTO ... --run RUN")
    if options.run is not None and options.model != settings.Model():
        raise ArgumentError("--run and --model.* are two classifiers: give one of them.")
    if not options.output.suffix:
        raise ArgumentError(f"`output` {options.output} needs the suffix of a format: .png, .jpg, .webp, .pdf or .svg.")
    if options.top is not None and (options.top < 1 or options.target):
        raise ArgumentError(
            f"--top {options.top} must be 1 or more, and cannot be combined with --target: give one of them."
        )
    for text in options.explainer:
        read_explainer(text)
    from contrex import photos

    asked = photos.Asked(
        explainers=options.explainer,
        layer=options.layer,
        classes=options.target,
        top=options.top,
        contrasts=options.contrast,
        task=options.task,
        threshold=options.threshold,
    )
    named = photos.classifier_of(options.run, options.model, options.classes)
    results = photos.explain_photos(options.photos, named, asked, side=options.side)
    for place in dict.fromkeys(f"{r.explainer} explains {r.place}" for r in results if r.place is not None):
        print(printable(place))
    for result in results:
        for panel in result.panels:
            empty = "" if panel.heatmap.any() else "   (the map is zero everywhere)"
            print(printable(f"{result.path}: {result.explainer}: {panel.question}{empty}"))
    for path, top in {result.path: result.top for result in results}.items():
        print(printable(path))
        for name, probability in top:
            print(f"  {probability:7.2%}  {printable(name)}")
    photos.save_picture(results, options.output)
    print(f"picture: {options.output}")
    return 0
