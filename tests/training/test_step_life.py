"""What a step says and does in a run: its parameters, its views, what follows an optimiser step; methods of a file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError
from contrex.methods import Plan, Step, Teacher, Wants, one_phase, step_output, training_plan, transformed_of
from contrex.models import Classifier, load_classifier
from contrex.models.convnet import ConvNet
from contrex.recipes import recipe_from
from contrex.settings import CGC, Labelled, Method, Optimizer, SupCon
from contrex.training import load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from training.runs import quiet, stopped_and_resumed, tiny, varied

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "mean_teacher.py"


def mean_teacher(**training):
    """The example's method on the tiny recipe."""
    return replace(tiny(**training), method=recipe_from(f"{EXAMPLE}:digits").method)


SEMI = replace(mean_teacher(batch_size=4), labelled=Labelled(per_class=1, rest="unlabelled", unlabelled_batch_size=6))


# --- the example ----------------------------------------------------------------------------------------------------


def watched(monkeypatch, recipe):
    """Student and teacher before the run and after each of its steps, and the teacher's mode in the forward passes."""
    kind, seen, modes = step_kind(recipe), [], []
    made, forward, after = kind.__init__, kind.forward, kind.after_step

    def state(step):
        return [
            {k: v.clone() for k, v in network.state_dict().items()} for network in (step.network, step.teacher.network)
        ]

    def making(step, *arguments):
        made(step, *arguments)
        seen.append(state(step))

    def running(step, batch):
        modes.append((step.network.training, any(m.training for m in step.teacher.modules() if m is not step.teacher)))
        return forward(step, batch)

    def following(step, number):
        assert number == len(seen)
        assert not torch.is_grad_enabled()
        after(step, number)
        seen.append(state(step))

    for name, act in (("__init__", making), ("forward", running), ("after_step", following)):
        monkeypatch.setattr(kind, name, act)
    return seen, modes


def step_kind(recipe):
    return type(training_plan(load_classifier(recipe.model, num_classes=10), recipe).phases[0].step)


@pytest.mark.parametrize("recipe", [mean_teacher(), mean_teacher(accumulate=2), SEMI], ids=["all", "parts", "semi"])
def test_the_teacher_follows_once_a_step_and_nothing_else_moves_it(monkeypatch, tmp_path, recipe):
    """By hand, with an optimiser that decays even what has no gradient; also with parts, and images without labels."""
    recipe = replace(recipe, optimizer=Optimizer("adamw", lr=1e-2, weight_decay=0.1))
    recipe = replace(recipe, method=replace(recipe.method, decay=0.75))
    seen, modes = watched(monkeypatch, recipe)
    train(recipe, tmp_path, console=quiet())
    (student, expected), *steps = seen
    assert len(steps) == len([line for line in read_log(tmp_path) if "loss" in line])
    for student, found in steps:
        for name, value in found.items():
            if "running" in name or "batches" in name:
                assert torch.equal(value, student[name])
            else:
                expected[name] = 0.75 * expected[name] + 0.25 * student[name]
                torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
                assert not torch.equal(value, student[name])
    assert set(modes) == {(True, False)}


@pytest.mark.parametrize(
    "recipe",
    [
        mean_teacher(),
        pytest.param(replace(SEMI, training=replace(SEMI.training, ema=0.9)), marks=pytest.mark.slow),
    ],
)
def test_the_example_is_resumed_bit_for_bit_with_its_teacher(tmp_path, recipe):
    stopped_and_resumed(recipe, tmp_path, steps=(3,))
    (state,) = Checkpoints(tmp_path / "straight").load()["steps"]
    assert {name.removeprefix("teacher.") for name in state if name.startswith("teacher.")} == {
        name for name in state if name.startswith("network.")
    }
    found, classifier, _ = load_trained(tmp_path / "straight")
    assert found == recipe
    assert all(parameter.requires_grad for parameter in classifier.network.parameters())


@pytest.mark.slow
def test_the_example_learns_from_its_teacher(tmp_path):
    """Its distance falls below that of a run that does not mind it."""
    with_it, without = (
        replace(mean_teacher(epochs=6), method=replace(mean_teacher().method, weight=weight, decay=0.5))
        for weight in (20.0, 0.0)
    )
    last = []
    for name, recipe in (("with", with_it), ("without", without)):
        train(recipe, tmp_path / name, console=quiet())
        distances = [line["distance"] for line in read_log(tmp_path / name) if "distance" in line]
        last.append(sum(distances[-6:]))
    assert last[0] < 0.7 * last[1]


# --- what a step wants ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ManyViews(Method):
    implementation: ClassVar[str] = ":ManyViewsStep"

    beside: int | None = None


class ManyViewsStep(Step):
    seen: ClassVar[list[list[torch.Tensor]]] = []

    def __init__(self, classifier, settings):
        super().__init__(classifier)
        self.wants = Wants(views=3, unlabelled_views=4, views_beside_unlabelled=settings.beside)

    def forward(self, batch):
        others = batch.unlabelled
        self.seen.append([transformed_of(batch, len(batch.views)), [] if others is None else transformed_of(others, 4)])
        logits = self.logits(batch.images)
        return step_output(batch.labels, logits, logits.logsumexp(1).mean())


@pytest.mark.parametrize(
    ("recipe", "beside", "numbers"), [(tiny(), None, (3, 0)), (SEMI, None, (3, 4)), (SEMI, 2, (2, 4))]
)
def test_a_step_gets_the_views_that_it_wants_all_different(tmp_path, recipe, beside, numbers):
    ManyViewsStep.seen.clear()
    train(varied(replace(recipe, method=ManyViews(beside)), epochs=1), tmp_path, console=quiet())
    for found in ManyViewsStep.seen:
        assert tuple(map(len, found)) == numbers
        for sets in found:
            assert all(not torch.equal(one, other) for i, one in enumerate(sets) for other in sets[:i])


def test_fewer_views_than_one_are_refused():
    with pytest.raises(ArgumentError, match=r"`wants.views` must be at least 1, got 0"):
        Wants(views=0)
    with pytest.raises(ArgumentError, match=r"`wants.unlabelled_views` must be at least 0, got -1"):
        Wants(unlabelled_views=-1)


def test_the_names_of_before_warn():
    step = (
        training_plan(Classifier(ConvNet(3), (0.5,) * 3, (0.25,) * 3), replace(tiny(), method=SupCon())).phases[0].step
    )
    with pytest.warns(DeprecationWarning, match=r"`needs_extra_views` is `wants.views > 1` now"):
        assert step.needs_extra_views
    with pytest.warns(DeprecationWarning, match=r"`needs_composites` is `wants.composites` now"):
        assert not step.needs_composites


# --- what it trains -------------------------------------------------------------------------------------------------


class Guided(Step):
    """A frozen guide in eval mode, with a part that is not frozen, and a batch norm of the network that stays."""

    def __init__(self, classifier, settings):
        super().__init__(classifier)
        self.guide = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).eval()
        self.guide[0].requires_grad_(False)
        self.other = nn.BatchNorm1d(3)
        self.network.features[0][1].eval()

    def forward(self, batch):
        raise AssertionError("its plan is asked for, no step is taken")


@dataclass(frozen=True)
class Guiding(Method):
    implementation: ClassVar[str] = ":Guided"


def plan_of(recipe, network=None):
    return training_plan(
        Classifier(network or ConvNet(3, widths=(4, 6), strides=(2, 2)), (0.5,) * 3, (0.25,) * 3), recipe
    )


@pytest.mark.parametrize("freeze", [(), ("features.1",)])
def test_what_a_step_freezes_and_keeps_in_eval_mode_stays_so(freeze):
    plan = plan_of(replace(tiny(freeze=freeze), method=Guiding()))
    (phase,) = plan.phases
    step = phase.step
    own = {id(parameter) for parameter in phase.parameters}
    assert not own & {id(parameter) for parameter in step.guide[0].parameters()}
    assert {id(parameter) for parameter in step.guide[2].parameters()} <= own
    for _ in range(2):
        phase.begin(0)
        assert not any(parameter.requires_grad for parameter in step.guide[0].parameters())
        assert not any(module.training for module in (*step.guide.modules(), step.network.features[0][1]))
        assert step.other.training
        assert step.network.training
        assert step.network.features[1].training is not bool(freeze)
        step.eval()
    plan.finish()
    assert not any(parameter.requires_grad for parameter in step.guide[0].parameters())
    assert all(parameter.requires_grad for parameter in step.network.parameters())


def test_an_evaluated_network_is_trained_in_train_mode():
    (phase,) = plan_of(tiny(), ConvNet(3).eval()).phases
    phase.begin(0)
    assert all(module.training for module in phase.step.network.modules())


def test_a_frozen_network_is_not_trained_without_a_word():
    with pytest.raises(
        ArgumentError, match=r"CGCStep has nothing to train: `trained_parameters\(\)` are those that are"
    ):
        plan_of(tiny(), ConvNet(3).requires_grad_(False))


def test_a_step_says_its_plan(monkeypatch):
    """Instead of one phase: here the same one twice an epoch."""

    def plan(self, recipe):
        (phase,) = one_phase(self, recipe).phases
        return Plan([phase, replace(phase, name="again")], [[0, 1]] * recipe.training.epochs)

    monkeypatch.setattr(Guided, "plan", plan)
    found = plan_of(replace(tiny(), method=Guiding()))
    assert [phase.name for phase in found.phases] == ["", "again"]


def test_a_teacher_that_forgets_everything_or_nothing():
    network = ConvNet(3, widths=(4, 6), strides=(2, 2))
    with pytest.raises(ArgumentError, match=r"`decay` must be from 0 to below 1, got 1"):
        Teacher(network, decay=1)
    teacher = Teacher(network, decay=0.0)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        network.fc.weight.add_(1)
    assert not torch.equal(teacher(images), network.eval()(images))
    teacher.after_step(network)
    assert torch.equal(teacher(images), network(images))
    assert not teacher(images).requires_grad


# --- what it is named by --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nameless(Method):
    pass


@dataclass(frozen=True)
class Elsewhere(Method):
    implementation: ClassVar[str] = "contrex.settings:CGC"


def test_settings_that_name_no_step():
    for method, name in ((Nameless(), "''"), (Elsewhere(), "'contrex.settings:CGC'")):
        message = (
            rf"`{type(method).__name__}.implementation` must name a subclass of contrex.methods.Step, .*got {name}"
        )
        with pytest.raises(ArgumentError, match=message):
            plan_of(replace(tiny(), method=method))
    assert type(plan_of(replace(tiny(), method=CGC())).phases[0].step).__name__ == "CGCStep"
