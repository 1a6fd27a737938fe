"""Pages that ask photos "why this class and not that one?", of one classifier or several side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from contrex.data.views.squares import central_square
from contrex.errors import ArgumentError
from contrex.explain import LayerExplainer
from contrex.explain.explorer import answers
from contrex.explain.explorer.class_maps import ClassMaps
from contrex.explain.explorer.content import VIEWS, WHOLE, Content, Explored, Model, Start
from contrex.explain.explorer.page import ExplorerPage
from contrex.explain.named import build_explainer, explainer_class
from contrex.explanation_record import Origin, Plain, record_of
from contrex.models import class_index
from contrex.models.own import INTERPOLATIONS
from contrex.ops import scores
from contrex.photos import Asked, NamedClassifier, Opened, PhotoExplanation, classifier_of, opened, seen_by
from contrex.settings import Model as ModelSettings
from contrex.settings.contrast import is_contrast, read_contrast
from contrex.settings.explainer import ExplainerText, read_explainer


@dataclass(frozen=True, eq=False)
class Participant:
    """A classifier on the page: its name there, the settings or the run that it is made from, and the names that the
    caller gave its classes."""

    name: str
    named: NamedClassifier
    run: Path | None = None
    model: ModelSettings = field(default_factory=ModelSettings)
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, run: Path | None, model: ModelSettings, classes: tuple[str, ...]) -> Participant:
        """The classifier of a run, or of the settings of a model; errors as in `photos.classifier_of`."""
        return cls(name, classifier_of(run, model, classes), run, model, classes)

    def on_page(self, side: int, task: str | None) -> Model:
        """What the page says of the classifier, and how it is asked outside of the page."""
        asked = [] if task is None else ["--task", task]
        return Model(self.name, self._python(side, task), COMMAND + shlex.join([*self._command(side), *asked]))

    def _python(self, side: int, task: str | None) -> str:
        run = "None" if self.run is None else f"Path({str(self.run)!r})"
        told = [f"{name}={_literal(value)}" for name, value in self._told().items()]
        names = f", classes={self.classes!r}" if self.classes else ""
        asked = "" if task is None else f", task={task!r}"
        return PYTHON.format(run=run, model=f"Model({', '.join(told)})", names=names, side=side, task=asked)

    def _told(self) -> dict[str, object]:
        """The settings of the model that are not the default."""
        values = {one.name: getattr(self.model, one.name) for one in fields(self.model)}
        return {name: value for name, value in values.items() if value != getattr(ModelSettings(), name)}

    def _command(self, side: int) -> list[str]:
        words = []
        if self.run is not None:
            words += ["--run", str(self.run)]
        for name, value in self._told().items():
            words += ["--pretrained"] if name == "pretrained" else [f"--model.{name.replace('_', '-')}", *_words(value)]
        return [*words, *(["--classes", *self.classes] if self.classes else []), "--side", str(side)]


COMMAND = "contrex explain {photo} --explainer {explainer} --target {target} --contrast {contrast} "

PYTHON = """\
from pathlib import Path

from contrex.photos import Asked, Photographer, Questions, classifier_of
from contrex.settings import Model

named = classifier_of({run}, {model}{names})
photographer = Photographer(named, Asked([{{explainer}}]{task}), side={side})


def ask(target, contrast):
    return photographer.explain(Path({{photo}}), Questions([target], [contrast])).rows[0][0]


why = ask({{target}}, {{contrast}})"""


def _literal(value: object) -> str:
    return f"Path({str(value)!r})" if isinstance(value, Path) else repr(value)


def _words(value: object) -> list[str]:
    if isinstance(value, dict):
        return [word for pair in value.items() for word in pair]
    return [str(one) for one in value] if isinstance(value, tuple) else [str(value)]


class Explorer:
    """Makes one page of photos, each explored by every participant, as `Photographer` explains them: whole, with a
    shorter side of `side` pixels (None: that of each classifier).

    Raises:
        ArgumentError: there is no participant, `side` is below 1, or an explainer does not fit a network.
    """

    def __init__(self, participants: Sequence[Participant], asked: Asked, *, side: int | None = None) -> None:
        if not participants:
            raise ArgumentError("`participants` is empty: name one classifier or more.")
        if side is not None and side < 1:
            raise ArgumentError(f"`side` must be at least 1 pixel, got {side}: it is the photo's shorter side.")
        self.participants, self._side = participants, side
        layers = [] if asked.layer is None else [asked.layer]
        texts = [one for text in asked.explainers for one in at_layers(text, layers)]
        self._asked = replace(asked, explainers=texts, layer=None)
        self._explainers = [
            [build_explainer(one.named.classifier.network, text) for text in self._asked.explainers]
            for one in participants
        ]
        self._origins = [
            Origin(one.named, self._asked, one.run, one.model, self._side_of(one), has_names=bool(one.classes))
            for one in participants
        ]
        self._start: Start | None = None
        self._pictures: list[Explored] = []

    def add(self, path: Path, page: Path) -> None:
        """Explore one photo, for a page that will be the file `page`.

        Raises:
            ArgumentError: the participants have other classes, or the asked ones are none of them.
            ImageError: the photo cannot be read.
        """
        photo = opened(path)
        explored, asked = self.explored(photo)
        records = [
            self._record(photo, one, maps, origin, page)
            for one, maps, origin in zip(asked, explored.answers[0], self._origins, strict=True)
        ]
        self._pictures.append(replace(explored, path=str(path), records=records))

    def explored(self, photo: Opened) -> tuple[Explored, list[answers.Asked]]:
        """What the page has of a photo, and who was asked what, to ask again about a changed photo. The first photo
        gives the question that a page opens with. Errors as in `add`."""
        seen, logits = self._seen(photo)
        names = self._names(scores.class_logits(logits, self._asked.task).shape[1])
        for explain in (explain for explainers in self._explainers for explain in explainers):
            explain.names = names
        if self._start is None:
            self._start = _start(self._asked, names, logits)
        classifiers = [one.named.classifier for one in self.participants]
        asked = [answers.Asked(*one) for one in zip(classifiers, self._explainers, seen, strict=True)]
        return Explored(photo.shown(seen[0]), VIEWS, self.answered(asked, VIEWS)), asked

    def answered(
        self, asked: Sequence[answers.Asked], views: Sequence[answers.Seen], first: Sequence[int] = ()
    ) -> list[list[list[ClassMaps]]]:
        """The maps of each of `views` of a photo, as in `answers.answers`; classes that come `first` have a map in any
        case, as those with which a page opens have."""
        start = self._start or Start()
        opens = [] if start.target is None else [start.target]
        if not isinstance(start.contrast, str):
            opens += start.contrast or ()
        return answers.answers(asked, task=self._asked.task, first=[*first, *opens], views=views)

    @property
    def num_photos(self) -> int:
        """How many photos were added."""
        return len(self._pictures)

    def page(self) -> ExplorerPage:
        """The page of the photos that were added.

        Raises:
            ArgumentError: there are none.
        """
        if not self._pictures:
            raise ArgumentError("none of the `photos` could be read: there is nothing to show.")
        models = [one.on_page(self._side_of(one), self._asked.task) for one in self.participants]
        return ExplorerPage(self.content(models, self._pictures))

    def content(self, models: Sequence[Model], pictures: Sequence[Explored]) -> Content:
        """What a page of these pictures has; `models` are the participants as the page names them."""
        return Content(models, pictures, self._asked.explainers, start=self._start or Start())

    def _side_of(self, one: Participant) -> int:
        return one.named.side if self._side is None else self._side

    def _seen(self, photo: Opened) -> tuple[list[Image.Image], Tensor]:
        """What each participant sees, the square where one sees only that, and the logits [1,K] of the first."""
        pairs = [seen_by(one.named, photo.image, self._side_of(one)) for one in self.participants]
        numbers = {scores.class_logits(logits, self._asked.task).shape[1] for _, logits in pairs}
        if len(numbers) > 1:
            raise ArgumentError(
                f"side by side are classifiers of the same classes, got {sorted(numbers)} of them: give each its page."
            )
        seen = [image for image, _ in pairs]
        if len({round(image.width / image.height, 1) for image in seen}) > 1:
            seen = [self._square(one, photo) for one in self.participants]
        return seen, pairs[0][1]

    def _square(self, one: Participant, photo: Opened) -> Image.Image:
        side, how = self._side_of(one), INTERPOLATIONS[one.named.classifier.interpolation]
        return central_square(photo.image, resize=side, size=side, how=how)

    def _names(self, num: int) -> tuple[str, ...]:
        """The names of the classes, which all participants have."""
        names = {tuple(one.named.names_of(num)) for one in self.participants}
        if len(names) > 1:
            raise ArgumentError(
                "side by side are classifiers of the same classes, and these name theirs differently: pass --classes "
                "for all, or give each its own page."
            )
        return names.pop()

    def _record(
        self, photo: Opened, asked: answers.Asked, maps: Sequence[ClassMaps], origin: Origin, page: Path
    ) -> Plain:
        """The record of a photo, to which the page adds the question that it is asked."""
        result = PhotoExplanation(
            photo.path, asked.views([WHOLE]), photo.image.size, photo.sha256, self._asked.explainers,
            [[one.about] for one in maps],
        )  # fmt: skip
        return record_of(result, origin, page)


def at_layers(text: str, layers: Sequence[str]) -> list[str]:
    """The texts of an explainer at each of several layers; without layers, and of an explainer of the pixels, the text
    as it is.

    >>> at_layers("grad_cam", ["layer3", "layer4"]), at_layers("gradient", ["layer3"])
    (["grad_cam(layer='layer3')", "grad_cam(layer='layer4')"], ['gradient'])
    """
    asked = read_explainer(text)
    if not layers or not issubclass(explainer_class(text), LayerExplainer):
        return [text]
    return [str(ExplainerText(asked.name, {**asked.options, "layer": layer})) for layer in layers]


def _start(asked: Asked, names: Sequence[str], logits: Tensor) -> Start:
    """The question with which a page opens: the first that was asked. The page has no nearest contrast: it opens with
    the classes that are nearest for the logits [1,K], those of the first photo, and their weighted contrast."""
    if asked.expected is not None:
        first = asked.questions(logits, names)[0]
        return Start(first.classes[0], None if len(first.contrasts) == 1 else [class_index(asked.expected, names)])
    target = class_index(asked.classes[0], names) if asked.classes else None
    contrast = next((text for text in asked.contrasts if text != "none"), None)
    if contrast is None:
        return Start(target)
    if is_contrast(contrast):
        read = read_contrast(contrast)
        foils = scores.foil_classes(logits, scores.class_indices(target, logits, asked.task), contrast, asked.task)
        near = foils[0].tolist() if foils is not None and read.name == "nearest" else None
        return Start(target, near or read.name, min(read.strength, 1.0))
    return Start(target, [class_index(contrast, names, what="`contrast`")])
