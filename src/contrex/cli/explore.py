"""The command `explore`, which writes a page of several models side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from contrex import settings
from contrex.cli.counting import Progress
from contrex.cli.explain import PAGES, check_output
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError
from contrex.importing import uncollected
from contrex.serving.installed import check_installed
from contrex.settings.explainer import read_explainer

if TYPE_CHECKING:
    from contrex.exploring import Explorer, Participant


@dataclass(frozen=True)
class Live:
    """The page with the models behind it."""

    serve: bool = False
    """Serve the page instead of writing it: photos are dropped on it, and erased, moved, enlarged and turned, and the
    maps follow. Needs pip install 'contrex[serve]'."""
    host: str | None = None
    """With --serve, the address to listen at. None is 127.0.0.1, which this machine alone can reach."""
    port: int | None = None
    """With --serve, the port to listen at. None is any free one."""


@dataclass(frozen=True)
class Explore:
    """Write, or serve, a page on which photos are asked "why this class and not that one?", of several models side by
    side."""

    words: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of trained runs, the baseline first, and photos: image files, folders of them, or wildcards."""
    model: settings.Model = field(default_factory=settings.Model)
    beside: tuple[Path, ...] = ()
    """More weights files of --model, each a model on the page: a retrofit's beside those of the network it started
    from."""
    explainer: tuple[str, ...] = ("grad_cam",)
    """Explainers to choose from on the page, as in contrex explain."""
    layer: tuple[str, ...] = ()
    """Layers to choose from, for each explainer of layers. Without any it is the last feature map."""
    target: str | None = None
    """The class that the page opens with, by name or index. None is the most probable one of each photo."""
    contrast: str | None = None
    """What it is explained against: mean, max, weighted, nearest (its classes), or a class by name or index."""
    task: settings.Task | None = None
    """What the logits are, as in contrex explain."""
    classes: tuple[str, ...] = ()
    """The names of the classes, or a file of them, as in contrex explain."""
    side: int | None = None
    """The shorter side of the photo that the networks see, in pixels. None is as in contrex explain."""
    output: Path = Path("explorer.html")
    """The file of the page."""
    live: Annotated[Live, tyro.conf.arg(name="")] = field(default_factory=Live)


def explore(arguments: Arguments) -> int:
    """Write a page that asks photos "why this class and not that one?", of several models side by side."""
    options = parsed(Explore, "explore", arguments)
    runs = [word for word in options.words if (word / "recipe.json").is_file()]
    words = [word for word in options.words if word not in runs]
    _check(options, runs, words)
    with uncollected():
        from contrex import photos
        from contrex.exploring import Explorer, at_layers

    found = photos.found_photos(words) if words else []
    texts = [one for text in options.explainer for one in at_layers(text, options.layer)]
    asked = photos.Asked(
        explainers=texts,
        classes=[] if options.target is None else [options.target],
        contrasts=[] if options.contrast is None else [options.contrast],
        task=options.task,
    )
    explorer = Explorer(list(_participants(options, runs)), asked, side=options.side)
    if options.live.serve:
        return _serve(explorer, found, options.live)
    num_unreadable = _each(found, lambda path: explorer.add(path, options.output))
    print(f"page: {explorer.page().save(options.output)}")
    return 2 if num_unreadable else 0


def _each(found: list[Path], add: Callable[[Path], None]) -> int:
    """Add photo after photo, and return how many could not be read."""
    progress = Progress(len(found))
    for path in found:
        with progress.photo():
            add(path)
    return progress.num_unreadable


def _serve(explorer: Explorer, found: list[Path], live: Live) -> int:
    """Answer in a browser, until Ctrl-C."""
    from contrex.serving.server import LOOPBACK, Server
    from contrex.serving.studio import MOST_PHOTOS, Studio

    studio = Studio(explorer, most=max(MOST_PHOTOS, len(found)))
    # The address is taken before the work, which may take minutes.
    with closing(Server(studio, host=live.host or LOOPBACK, port=live.port or 0)) as server:
        _each(found, studio.open)
        if not server.is_local:
            print(f"contrex: whoever reaches {server.host} and has the address can use the models", file=sys.stderr)
        print(f"explorer: {server.address}\nCtrl-C ends it; photos are kept in memory only.", flush=True)
        server.run()
    return 0


def _check(options: Explore, runs: list[Path], words: list[Path]) -> None:
    """Refuse, before anything is loaded, what cannot come to an end."""
    if options.live.serve:
        check_installed()
        if options.output != Explore.output:
            raise ArgumentError(f"`output` {options.output} is not written with --serve: leave one of them out.")
    elif options.live != Live():
        raise ArgumentError("`host` and `port` are those of --serve: add it, or leave them out.")
    elif not words:
        raise ArgumentError(
            "name one photo or more: contrex explore RUN ... PHOTO ... (with --serve they can be dropped on the page)"
        )
    if options.beside and options.model.is_untrained:
        raise ArgumentError(
            "--beside has more weights of --model: give it its own too, --model.weights or --pretrained."
        )
    if not runs and options.model.is_untrained:
        raise ArgumentError("name a trained run's folder, or a network: --model NAME --pretrained, or --model.weights.")
    if not options.live.serve:
        check_output(options.output, PAGES)
    for text in options.explainer:
        read_explainer(text)


def _participants(options: Explore, runs: list[Path]) -> Iterator[Participant]:
    """The models of the page: the runs, --model, and its weights beside it."""
    from contrex.exploring import Participant

    for run in runs:
        yield Participant.of(_name(run, runs), run, settings.Model(), options.classes)
    if not options.model.is_untrained:
        weights = options.model.weights
        name = weights.stem if weights and options.beside else options.model.name
        yield Participant.of(name, None, options.model, options.classes)
    for file in options.beside:
        model = replace(options.model, weights=file)
        yield Participant.of(file.stem, None, model, options.classes)


def _name(run: Path, runs: list[Path]) -> str:
    """The folder's name, or its whole path where another run has the same."""
    return str(run) if [one.name for one in runs].count(run.name) > 1 else run.name
