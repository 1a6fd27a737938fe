"""What the processes of a test do; each function runs in all of them."""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, replace
from unittest import mock

import torch
from torch import nn

from contrex import ranks
from contrex.errors import CheckpointError
from contrex.evaluation import evaluate, validation_groups
from contrex.evaluation.validation import best_scale
from contrex.methods import METHODS, step_class, training_plan
from contrex.models import Classifier, eval_mode
from contrex.models.convnet import ConvNet
from contrex.recipes import recipe_from
from contrex.settings import Digits, GridPointing, Model, Recipe, Training
from contrex.training import compiling, distributed, loop, preparing, sharding, train
from contrex.training import trained as trained_module
from contrex.training.checkpoint import Checkpoints
from evaluation.test_compared import other, right_classifier
from evaluation.test_run import DATA, subject
from evaluation.test_run import options as evaluation_options
from methods.test_steps import make_batch
from training.runs import quiet

SEEDS = (7, 2)
"""Of the batches of two steps."""

NUM = 6
"""Images of the whole batch: for two and for three processes."""


class MLPNet(nn.Module):
    """Two convolutions, pooling and a head with a hidden layer: the gradient of a heatmap runs through it."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1),
            nn.Softplus(),
            nn.Conv2d(5, 6, 3, stride=2, padding=1),
            nn.Softplus(),
        )
        self.head = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, num_classes))

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class FlatNet(nn.Module):
    """No pooling: each cell of the last map has weights of its own."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Softplus())
        self.fc = nn.Linear(4 * 3 * 3, num_classes)

    def forward(self, images):
        return self.fc(self.features(images).flatten(1))


class HiddenNet(nn.Module):
    """As AlexNet and VGG: pooled to a few cells, each with weights of its own, two layers and dropout."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Softplus())
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(16, 7), nn.ReLU()), *(nn.Dropout(), nn.Linear(7, num_classes))
        )

    def forward(self, images):
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


class ConvolutionalNet(nn.Module):
    """As SqueezeNet: a map for each class, pooled."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.Softplus())
        self.classifier = nn.Sequential(nn.Conv2d(6, num_classes, 1), nn.Softplus(), nn.AdaptiveAvgPool2d(1))

    def forward(self, images):
        return self.classifier(self.features(images)).flatten(1)


class TokenNet(nn.Module):
    """As a ViT: patches, a token for the class, attention; the layer before the last block is explained."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 17, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 12, 0.1, "gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, num_classes)

    def forward(self, images):
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.block(tokens))[:, 0])


NETWORKS = {
    "convnet": lambda: ConvNet(3, widths=(4, 6), strides=(2, 2)),
    "mlp": MLPNet,
    "flat": FlatNet,
    "hidden": HiddenNet,
    "convolutional": ConvolutionalNet,
    "token": TokenNet,
}


def classifier(network="convnet"):
    torch.manual_seed(4)
    return Classifier(NETWORKS[network]().double(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def plan_of(method, network="convnet", *freeze, **settings):
    settings = {**({"resolution": 16} if "cgc" in method else {}), **settings}
    recipe = Recipe(
        method,
        Digits(),
        Model("contrex:convnet"),
        METHODS[method](**settings),
        training=Training(epochs=3, freeze=freeze),
    )
    plan = training_plan(classifier(network), recipe)
    for teacher in (step.teacher for step in plan.modules() if getattr(step, "teacher", None) is not None):
        for parameter in teacher.parameters():  # so that there is something to learn from it
            parameter.data.mul_(0.5)
    return plan


def part_of(batch, part):
    """The images of a slice of a batch."""
    unlabelled = batch.unlabelled
    if unlabelled is not None:  # of as many parts, each as large as it is of theirs
        ratio = len(unlabelled) // len(batch)
        unlabelled = part_of(unlabelled, slice(part.start * ratio, part.stop * ratio))
    return replace(batch.part(part), unlabelled=unlabelled)


def share(batch, number, num):
    size = len(batch) // num
    return part_of(batch, slice(number * size, (number + 1) * size))


def whole_batch(seed, unlabelled=0):
    """Two views of each image, and something for it to be composed with; perhaps images without labels beside them."""
    batch = replace(make_batch(NUM, num_views=2, seed=seed), indices=torch.arange(NUM))
    if unlabelled:
        beside = replace(make_batch(unlabelled, seed=seed + 1), labels=torch.full((unlabelled,), -1))
        return replace(batch, unlabelled=beside)
    if "composites" not in {field.name for field in fields(batch)}:
        return batch
    generator = torch.Generator().manual_seed(seed)
    composites = torch.rand(NUM, 3, 32, 32, generator=generator, dtype=torch.float64)
    return replace(batch, composites=composites, cells=torch.randint(4, (NUM,), generator=generator))


def gradients(run, phase, batches, accumulate=1):
    """Loss and terms, and the gradients, of the last of some batches, batch norm in eval mode; each is a step."""
    phase.begin(0)
    with eval_mode(phase.step.network):
        for batch in batches:
            phase.step.zero_grad()
            parts, outputs = [share(batch, number, accumulate) for number in range(accumulate)], []
            for number, part in enumerate(parts, 1):
                with nullcontext() if number == len(parts) else run.unsynchronised():
                    outputs.append(run(part))
                    (outputs[-1].loss / len(parts)).backward()
    loss = ranks.means([torch.stack([output.loss for output in outputs]).mean()])[0]
    names = list(outputs[0].logs)
    logs = ranks.means([torch.stack([output.logs[name] for output in outputs]).mean() for name in names])
    found = {name: p.grad for name, p in phase.step.named_parameters() if p.grad is not None}
    return loss, dict(zip(names, logs, strict=True)), found


def own_gradients(cases):
    """The gradients that this process ends up with for its share of two batches, for each case and phase."""
    found = {}
    for case, (method, network, settings, options) in cases.items():
        plan = plan_of(method, network, *options.get("freeze", ()), **settings)
        runners = {}
        if options.get("shard") and ranks.world_size() > 1:
            plan, runners[0] = sharding.sharded(plan, torch.device("cpu"))
        for number, phase in enumerate(plan.phases):
            phase.begin(0)
            run = runners.get(number) or distributed.runner(phase.step)
            batches = [
                share(whole_batch(seed, options.get("unlabelled", 0)), ranks.rank(), ranks.world_size())
                for seed in SEEDS
            ]
            loss, logs, grads = gradients(run, phase, batches, options.get("accumulate", 1))
            grads = sharding.whole_state(grads)
            queue = getattr(phase.step, "queue", None)
            found[case, number] = {
                "loss": loss,
                "logs": logs,
                "gradients": grads if ranks.rank() == 0 else None,
                "digest": digest(grads.values()),
                "queue": None if queue is None else queue.flatten().tolist(),
            }
    return found


def with_a_mistake(kind, cases):
    """`own_gradients` of steps with a gather that has no gradient, or that DDP is not asked to run."""
    detached = mock.patch.object(ranks, "gathered_rows", without_gradient(ranks.gathered_rows))
    bypassed = mock.patch.object(distributed.ReplicatedRunner, "__call__", distributed.Runner.__call__)
    with {"detached": detached, "bypassed": bypassed}[kind]:
        return own_gradients(cases)


def without_gradient(gathered_rows):
    def gathered(own, **options):
        parts = gathered_rows(own.detach(), **options)
        return [*parts[: ranks.rank()], own, *parts[ranks.rank() + 1 :]]

    return gathered


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def gathered_rows_of_different_lengths():
    """Of `sum_r w_r f(everyone's rows)`: the gradient for the rows of each process, and the rows."""
    number = ranks.rank()
    own = torch.arange(1.0, number + 1, dtype=torch.float64)[:, None] + 10 * number  # none in the first process
    own.requires_grad_()
    rows = torch.cat(ranks.gathered_rows(own, equal=False))
    ((number + 1) * (rows**2).sum()).backward()
    return rows.detach(), own.grad


def evaluated(*metrics, limit=None):
    """The record of all processes, as each has it: of 70 images in groups of 32."""
    who, options = subject(replace(DATA, num_test=70)), evaluation_options(*metrics, limit=limit)
    if "grid_pointing_game" in metrics:
        who = replace(who, classifier=right_classifier(), others={"larger": other(3, widths=(4, 8))})
        game = GridPointing(size=2, num_grids=5, least_confidence=0.3)
        options = replace(options, others=("larger",), grid_pointing=game)
    return evaluate(who, options)


def scale_of_logits():
    """What brings a classifier's probabilities nearest to those of one like it, on 70 images in groups of 32."""
    who = subject(replace(DATA, num_test=70))
    reference = copy.deepcopy(who.classifier.network).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        who.classifier.network.fc.weight *= 4
        reference.fc.weight *= 6
        reference.fc.weight += 0.2 * torch.randn(reference.fc.weight.shape, generator=generator)
    groups = validation_groups(who.images, who.data)
    return best_scale(who.classifier, groups, device=torch.device("cpu"), reference=reference)


# --- runs -----------------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """No batch norm, no dropout: as one process, to rounding."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.Softplus())
        self.fc = nn.Linear(6, 10)

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


def plain_classifier(*_, **__):
    torch.manual_seed(2)
    return Classifier(Plain(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def trained(recipe, folder, resume=False, plain=False, fault=None):
    """Train in all processes; `fault` = (kind, rank, step) happens in one of them. The digest of the weights."""
    load = plain_classifier if plain else preparing.load_classifier
    with ExitStack() as patches:
        for module in (preparing, trained_module):  # at the start, and at the end where weights were shared out
            patches.enter_context(mock.patch.object(module, "load_classifier", load))
        patches.enter_context(faulty(*fault) if fault else nullcontext())
        found = train(recipe, folder, resume=resume, console=quiet())
    return digest(value for value in found.network.state_dict().values())


def counted(recipe, folder):
    """How many steps were taken, how often DDP was called in them, and how many backward passes began."""
    calls = {"ddp": 0, "backward": 0, "step": 0}

    def counting(name, real):
        def count(*arguments, **options):
            calls[name] += 1
            return real(*arguments, **options)

        return count

    replica = torch.nn.parallel.DistributedDataParallel
    with (
        mock.patch.object(replica, "forward", counting("ddp", replica.forward)),
        mock.patch.object(torch.Tensor, "backward", counting("backward", torch.Tensor.backward)),
        mock.patch.object(loop, "take_step", counting("step", loop.take_step)),
    ):
        trained(recipe, folder, plain=True)
    return calls["step"], calls["ddp"], calls["backward"]


def compiled(recipe, folder):
    """The weights of a run as it is and of one that is compiled, and how many pieces of its network were."""
    pieces, real = [], compiling.compile_network

    def counting(step, images):
        found = real(step, images)
        pieces.extend(found)
        return found

    weights = []
    for number, options in enumerate(({}, {"compile": True})):
        one = replace(recipe, training=replace(recipe.training, **options))
        with (
            mock.patch.object(compiling, "BACKEND", "aot_eager"),
            mock.patch.object(compiling, "compile_network", counting),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # torch.compile looks at its inputs
            weights.append(train(one, folder / str(number), console=quiet()).network.state_dict())
    return *weights, len(pieces)


def trained_on_a_full_disk(recipe, folder):
    """The first process cannot write its checkpoint."""
    with mock.patch.object(Checkpoints, "save", side_effect=CheckpointError("no space left")):
        train(recipe, folder, console=quiet())


@contextmanager
def faulty(kind, rank, step):
    """Something happens in one process while it is in the forward pass of a step (from 0)."""
    with ExitStack() as faults:
        for runner in (distributed.ReplicatedRunner, sharding.ShardedRunner):
            faults.enter_context(mock.patch.object(runner, "__call__", at(kind, rank, step, runner.__call__)))
        yield


def at(kind, rank, step, real):
    """`real`, with something that happens in its call number `step`."""
    calls = []

    def call(self, batch):
        calls.append(1)
        if len(calls) != step + 1 or ranks.rank() != rank:
            return real(self, batch)
        if kind == "error":
            raise ZeroDivisionError("a bug in one process")
        if kind == "orphan":
            os.getppid = lambda: 1
        if kind in ("SIGTERM", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, kind))
        output = real(self, batch)
        if kind == "nan gradient":  # of 0, whose root has none
            return replace(output, loss=output.loss + (output.loss - output.loss.detach()).sqrt())
        return replace(output, loss=output.loss * torch.nan) if kind == "nan" else output

    return call


def taught(recipe, folder, method):
    """Train the method of a recipe of a file, `FILE.py:NAME`; how often the step of this process heard of a step, and
    the digests of its teacher and, put together where weights are shared out, of its network."""
    recipe = replace(recipe, method=replace(recipe_from(method).method, decay=0.5))
    steps, kind = [], step_class(type(recipe.method))
    real = kind.after_step

    def counting(step, number):
        real(step, number)
        steps.append((number, step))

    with mock.patch.object(kind, "after_step", counting):
        trained(recipe, folder)
    whole = [sharding.whole_state(part.state_dict()) for part in (steps[-1][1].teacher.network, steps[-1][1].network)]
    return [number for number, _ in steps], *(digest(state.values()) for state in whole)


def several(*jobs):
    """Some of these functions, one after the other, in one group of processes: `(name, function, arguments, keywords)`.

    What an error left of one is its name, its message and its exit code."""
    found = {}
    for name, function, arguments, *keywords in jobs:
        try:
            found[name] = function(*arguments, **(keywords[0] if keywords else {}))
        except Exception as error:
            found[name] = (type(error).__name__, str(error), getattr(error, "exit_code", None))
    return found
