"""Which images without labels a run has, beside its labelled ones or alone, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

from contrex.data.labelled import TrainingImages
from contrex.data.sample import ImageSet
from contrex.data.streams import stream
from contrex.data.views.squares import view_sizes
from contrex.data.views.training import TrainingViews
from contrex.data.views.unlabelled import Cycle
from contrex.errors import ArgumentError
from contrex.methods import METHODS, Plan, Wants, step_class
from contrex.settings import Recipe
from contrex.training import distributed


def unlabelled_cycle(recipe: Recipe, plan: Plan, images: ImageSet | None) -> Cycle | None:
    """The images without labels of each step, where the run has some.

    They are seen as the labelled ones are, in order and crops of their own, with as many views as the phases want.

    Raises:
        ArgumentError: a phase takes none, or a batch of them is larger than all of them or cannot be shared evenly.
    """
    if images is None:
        return None
    options, steps = recipe.training, list(plan.modules())
    where = "`labelled.rest` unlabelled" if recipe.labelled.unlabelled is None else "`labelled.unlabelled`"
    refusing = next((step for step in steps if not step.wants.unlabelled_views), None)
    if refusing is not None:
        fix = "set `labelled.rest` unused" if recipe.labelled.unlabelled is None else "leave it out"
        raise ArgumentError(
            f"{where} is not for {type(recipe.method).__name__}: {refusing.needs_labels}. Train "
            f"{' or '.join(_taking_unlabelled())}, or {fix}."
        )
    size = recipe.labelled.unlabelled_batch_size or options.batch_size
    if size > len(images):
        raise ArgumentError(
            f"{where}: a step has {size} of them, and there are {len(images)}: set `labelled.unlabelled_batch_size` to "
            f"{len(images)} or less."
        )
    distributed.check_shares("labelled.unlabelled_batch_size", size, options)
    resize, side = view_sizes(recipe.data)
    # A seed of its own: with the run's, image i without a label would get the crops of labelled image i.
    seed = int(stream("unlabelled", options.seed).integers(2**31))
    views = TrainingViews(
        images,
        resize=resize,
        size=side,
        augmentation=plan.phases[0].augmentation,
        seed=seed,
        num_views=max(step.wants.unlabelled_views for step in steps),
    )
    views.makes_pixels = any(step.wants.pixels for step in steps)
    return Cycle(views, size, distributed.own_parts(options, size))


def check_labels(recipe: Recipe, plan: Plan, images: TrainingImages) -> None:
    """Refuse a data set without labels where a phase needs them, to learn from or to be validated.

    Raises:
        ArgumentError: it does; the message says who does not.
    """
    if images.validation.has_labels and any(one.tolerance is not None or one.rescales for one in plan.modules()):
        raise ArgumentError(
            "`method.tolerance` and `method.rescale` are for photos without labels, some of which are kept out, and "
            f"{images.validation.name} has labels: leave them out, or train on `--data photos:PATH`."
        )
    if images.labelled.has_labels:
        return
    refusing = next((step for step in plan.modules() if step.wants.labels or step.reference is None), None)
    if refusing is not None:
        reason = refusing.needs_labels if not refusing.wants.unlabelled_views else "its cross-entropy needs labels"
        raise ArgumentError(
            f"{images.labelled.name} has no labels, and is not for {type(recipe.method).__name__}: {reason}. Train "
            f"{' or '.join(_taking(lambda wants: not wants.labels))} (`method.label_weight` 0), or put the photos "
            "beside labelled ones, `labelled.unlabelled`."
        )


def _taking_unlabelled() -> list[str]:
    """The names of contrex's own methods that take images without labels beside others."""
    return _taking(lambda wants: wants.unlabelled_views > 0)


def _taking(fits: Callable[[Wants], bool]) -> list[str]:
    """The names of contrex's own methods whose wants fit."""
    kinds = dict.fromkeys(type(make()) for make in METHODS.values())
    return [kind.__name__ for kind in kinds if fits(step_class(kind).wants)]
