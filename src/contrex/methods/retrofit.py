"""Self-distilled consistency: better heatmaps for a network that is trained already, from images without labels.

A frozen copy of the network as it was teaches it to keep its outputs, while CGC's loss (Pillai et al., CVPR 2022) makes
its heatmaps consistent:

    L = w * T^2 * mean KL( softmax(t / T) || softmax(y / T) )  +  lambda * L_CGC

for the logits y of the network and t of its teacher, on the plain and the transformed images alike (2N rows), and on
incomplete ones (`contrex.methods.incomplete`), where `settings.incomplete` is more than 0: then the sum of all is
divided by the number of rows in the mean, (2 + incomplete) N. Both terms need no label: g explains the network's own
top class on the plain image.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from contrex.data.views.batch import Batch
from contrex.errors import ArgumentError
from contrex.explain import Explanation
from contrex.explain.forward.trunk import going_on
from contrex.explain.named import build_explainer
from contrex.losses import distillation_loss
from contrex.methods.averaging import Teacher
from contrex.methods.cgc import CGCStep, with_fewer_views, without_negatives
from contrex.methods.e2kd import E2KD
from contrex.methods.incomplete import drawn, incomplete
from contrex.methods.kept import SharedTrunk, TrunkViews, seen_in
from contrex.methods.moving import trained_part
from contrex.methods.phase import Plan, one_phase
from contrex.methods.step import StepOutput, Wants, step_output, view_cross_entropy, views_of
from contrex.models import Classifier, model_logits
from contrex.settings import Recipe, Retrofit


class RetrofitStep(CGCStep):
    """Distillation from the teacher and consistency of the heatmaps, of a part of the network.

    The network has one forward pass for both views, the teacher another one; what comes before the trained part is run
    once for both, and kept for images that come again (`contrex.methods.kept`). With `label_weight` the labelled images
    have a cross-entropy as well; where images without labels lie beside them, these alone have the other terms, and the
    labelled ones a forward pass of their own, the first. The teacher stays as it was, or follows (`teacher_decay`).
    """

    settings: Retrofit
    wants = Wants(unlabelled_views=1, labels=False)

    def __init__(self, classifier: Classifier, settings: Retrofit) -> None:
        explainer = build_explainer(classifier.network, settings.explainer, settings.layer)
        if not explainer.is_differentiable:
            raise ArgumentError(
                f"`method.explainer` {settings.explainer} has no differentiable map, which is what is trained: take "
                "hires_cam or grad_cam."
            )
        super().__init__(classifier, settings, explainer)
        self.wants = Wants(unlabelled_views=1, labels=settings.label_weight > 0, pixels=settings.view_layer is None)
        self._e2kd = E2KD(settings)
        self.has_negatives, self.tolerance, self.sure = settings.negatives, settings.tolerance, settings.sure
        self.rescales = settings.rescale
        self.teacher = Teacher(self.network, decay=settings.teacher_decay)
        self.trunk = SharedTrunk(self.network, self.teacher, explainer, settings.keep_gib)
        if settings.view_layer is not None:
            self._layer_views = TrunkViews(self.network, self.trunk, explainer)
        self._seed, self._period, self._num_views = 0, 0, 0

    def plan(self, recipe: Recipe) -> Plan:
        """One phase, with what of the network is not trained held.

        Raises:
            ArgumentError: labelled images lie beside others, and nothing is learnt from them.
        """
        if recipe.labelled.has_unlabelled and not self.wants.labels:
            raise ArgumentError(
                "`method.label_weight` 0 learns nothing from the images with labels beside those without: set it, or "
                "train on the others alone, `--data photos:PATH`."
            )
        at_end = "tolerance" if self.tolerance is not None else "rescale" if self.rescales else None
        if recipe.training.shard and at_end is not None:
            raise ArgumentError(
                f"`method.{at_end}` changes the weights at the end of the run, and `training.shard` has shared them "
                "out: leave one of them out."
            )
        self._seed, self._period = recipe.training.seed, recipe.augmentation.period or 0
        self._num_views = 0 if self.settings.view_layer else self._period
        self.trunk.num_views = self._num_views + (self._period if self.settings.incomplete else 0)
        plan, own = one_phase(self, recipe), set(self.trained_parameters())
        held = [parameter for parameter in self.network.parameters() if parameter not in own]
        return replace(plan, phases=[replace(phase, held=held) for phase in plan.phases])

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters of the part that `settings.trained` names."""
        return trained_part(self.network, self.settings.trained)

    def kept_in_eval(self) -> list[nn.Module]:
        """The network in mode eval; otherwise its modules of which nothing is trained."""
        if self.settings.mode == "eval":
            return [self.network]
        own = set(self.trained_parameters())
        of_modules = ((module, list(module.parameters())) for module in self.network.modules())
        return [module for module, parameters in of_modules if parameters and own.isdisjoint(parameters)]

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch: explain both views, compare heatmaps with each other and logits with the teacher's."""
        settings, unlabelled = self.settings, batch.unlabelled
        beside = self.classified(batch, settings.views) if unlabelled is not None and self.wants.labels else None
        subject = batch if unlabelled is None else unlabelled
        if settings.compared_with == "view":
            loss, terms, logits = self._retrofitted(subject)
        else:
            loss, terms, logits = self._e2kd(self, self._explainer, self.teacher, subject)
        if not self.wants.labels:
            logs = {"loss": loss, **terms}
            return StepOutput(loss, {name: value.detach() for name, value in logs.items()})
        plain, transformed = logits[: len(batch)], logits[len(batch) :]
        entropy = view_cross_entropy(plain, transformed, batch.labels, settings.views) if beside is None else beside[0]
        seen = plain if beside is None else beside[1]
        return step_output(batch.labels, seen, loss + settings.label_weight * entropy, cross_entropy=entropy, **terms)

    def after_step(self, number: int) -> None:
        """A teacher that follows the network moves on."""
        self.teacher.after_step(self.network)

    @property
    def reference(self) -> nn.Module:  # type: ignore[override]
        """The teacher: without labels, what counts is how often the network still agrees with it."""
        return self.teacher

    @property
    def began_as(self) -> nn.Module:  # type: ignore[override]
        """The teacher's network, which does not follow where there is a tolerance."""
        return self.teacher.network

    def consistency(self, heatmaps: Tensor, heatmaps_view: Tensor, batch: Batch) -> Tensor:
        """`cgc_loss`, or without negatives `l2_consistency_loss`, with its settings."""
        if self.settings.negatives:
            return super().consistency(heatmaps, heatmaps_view, batch)
        return without_negatives(heatmaps, heatmaps_view, batch, self.settings)

    def _retrofitted(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss without labels, its terms, and the logits `[N+n,K]` of the N plain and the n transformed
        images."""
        batch = with_fewer_views(batch, self.settings)
        settings, (found, theirs) = self.settings, self._explained_and_taught(batch)
        logits = float32(found.logits)
        distillation = distillation_loss(logits, theirs, temperature=settings.distillation_temperature)
        if settings.incomplete:
            # divided by how many there are in the mean: so processes that share a batch have its loss between them
            num = settings.incomplete * len(batch)
            distillation = (len(logits) * distillation + self._of_incomplete(batch)) / (len(logits) + num)
        heatmaps_view = found.heatmap[len(batch) :]
        heatmaps = found.heatmap[: len(heatmaps_view)]
        consistency = self.consistency(heatmaps, heatmaps_view, batch)
        agreement = (logits.argmax(1) == theirs.argmax(1))[: len(batch)].float().mean()
        loss = settings.distillation_weight * distillation + settings.weight * consistency
        return loss, {"distillation": distillation, "consistency": consistency, "agreement": agreement}, logits

    def _explained_and_taught(self, batch: Batch) -> tuple[Explanation, Tensor]:
        """The maps and logits `[N+n]` of both views, and the teacher's logits; one trunk for both networks."""
        if self._layer_views is None:
            images = self.normalise(torch.cat(views_of(batch)))
            shared = self.trunk.of(images, seen_in(batch))
        else:
            plain, crop = self.normalise(batch.images), batch.views[0].crop
            self._layer_views.layer(plain)
            shared = self.trunk.of(plain, seen_in(batch)[: len(batch)])
            assert shared is not None
            images, shared = torch.cat([plain, plain[: len(crop)]]), self.trunk.with_views(shared, plain, crop)
        if shared is None:
            return self._explain(batch), model_logits(self.teacher, images)
        with going_on(self.network, shared.end, shared.features):
            return self._explained(images, batch), shared.logits

    def _of_incomplete(self, batch: Batch) -> Tensor | int:
        """The sum of the divergences of the incomplete images; 0 where none is drawn."""
        num, period = len(batch), self._period
        places = list(range(num)) if batch.indices is None else batch.indices.tolist()
        draw = self.epoch % period if period else self.epoch
        chosen = drawn(places, self.settings.incomplete, seed=self._seed, draw=draw)
        if not chosen:
            return 0
        numbers = [number for number, _ in chosen]
        images = incomplete(self.normalise(batch.images[numbers]), [generator for _, generator in chosen])
        comes_again = period and batch.indices is not None
        shared = self.trunk.of(images, [(places[n], self._num_views + draw) if comes_again else None for n in numbers])
        temperature = self.settings.distillation_temperature
        if shared is None:
            own, theirs = model_logits(self.network, images), model_logits(self.teacher, images)
        else:
            with going_on(self.network, shared.end, shared.features):
                own, theirs = model_logits(self.network, images), shared.logits
        return len(chosen) * distillation_loss(float32(own), theirs, temperature=temperature)


def float32(logits: Tensor) -> Tensor:
    """The logits in float32 or better, also under autocast."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
