"""The command that draws: `explain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from contrex import settings
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError, printable


@dataclass(frozen=True)
class Explain:
    """Draw why a photo is one class - and, with --contrast, not another."""

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    run: Path | None = None
    """A trained run to explain with, instead of --model."""
    model: settings.Model = field(default_factory=settings.Model)
    explainer: tuple[str, ...] = ("grad_cam",)
    """One row of maps for each: a name (contrex explainers lists them), FILE.py:CLASS, MODULE:CLASS or captum:CLASS."""
    layer: str | None = None
    """Layer to explain; None is the last feature map."""
    target: tuple[str, ...] = ()
    """Classes to explain, by name or index; none are the most probable ones of each photo."""
    top: int | None = None
    """How many of the most probable classes to explain; without --contrast each has its map and its weighted contrast
    side by side."""
    contrast: tuple[str, ...] = ()
    """One map for each: none, against the others (mean, max, weighted), or against one class by name or index."""
    task: settings.Task | None = None
    """A softmax over the logits (multiclass), a sigmoid of one with two classes (binary), or of each, one per label
    (multilabel); None is binary for a classifier with one logit, else multiclass."""
    threshold: float | None = None
    """With --task multilabel, and without --target and --top, every label with a probability above it is explained, at
    least the most probable one; None is 0.5."""
    classes: Path | None = None
    """File of class names, one a line or `index<TAB>id<TAB>names`; None takes the run's, or ImageNet's for 1000."""
    side: int | None = None
    """Shorter side of the photo as the network sees it, in pixels, nothing is cropped; None is the run's, or 224."""
    output: Path = Path("explanation.png")
    """The picture; its suffix names the format."""


def explain(arguments: Arguments) -> int:
    """Draw why a photo is what the classifier says it is, and name its most probable classes."""
    options = parsed(Explain, "explain", arguments)
    if not options.photos:
        raise ArgumentError("name one photo or more: contrex explain PHOTO ... --run RUN")
    if options.run is not None and options.model != settings.Model():
        raise ArgumentError("--run and --model.* are two classifiers: give one of them.")
    if not options.output.suffix:
        raise ArgumentError(f"`output` {options.output} needs the suffix of a format: .png, .jpg, .webp, .pdf or .svg.")
    if options.top is not None and (options.top < 1 or options.target):
        raise ArgumentError(
            f"--top {options.top} must be 1 or more, and not with --target: the classes are one or other."
        )
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
