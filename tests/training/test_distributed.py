"""What several processes refuse, which part of a batch each reads, and synchronised batch norm."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from contrex import ranks
from contrex.cli import main
from contrex.data.loading import TrainingLoader
from contrex.data.views.batch import Batch
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError
from contrex.methods import METHODS, training_plan
from contrex.models import Classifier
from contrex.models.convnet import ConvNet
from contrex.settings import CGC, Augmentation, Digits, Model, Recipe, SupCon, Training
from contrex.training import compiling, distributed, train
from contrex.training.preparing import on_all_processes
from training.runs import quiet, tiny

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(ranks, "world_size", lambda: 2)


def classifier_of(network):
    return Classifier(network, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def plan_of(method, network=None):
    recipe = Recipe("r", Digits(), Model(), method, training=Training(epochs=2))
    return training_plan(classifier_of(network or ConvNet(3, widths=(4, 6), strides=(2, 2))), recipe)


@pytest.mark.parametrize(
    ("options", "device", "message"),
    [
        ({"batch_size": 9}, CPU, r"`training.batch_size` 9 cannot be shared evenly by 2 processes: take 8 or 10\."),
        ({"batch_size": 1}, CPU, r"`training.batch_size` 1 cannot be shared evenly by 2 processes: take 2\."),
        ({"batch_size": 9, "accumulate": 3}, CPU, r"by 2 processes x `training.accumulate` 3: take 6 or 12\."),
        (
            {"sync_batch_norm": True},
            CPU,
            r"`training.sync_batch_norm` needs GPUs, torch has no synchronised batch norm",
        ),
        ({}, torch.device("cuda", 0), r"`training.device` cuda:0 is one GPU for 2 processes: write cuda"),
    ],
)
def test_what_two_processes_cannot_do(two, options, device, message):
    with pytest.raises(ArgumentError, match=message):
        distributed.check_device(Training(**options), device)


def test_one_process_has_nothing_to_share_out(tmp_path):
    with pytest.raises(ArgumentError, match=r"`training.shard` shares weights out among processes, and there is one"):
        train(tiny(shard=True), tmp_path, console=quiet())
    with pytest.raises(ArgumentError, match=r"`training.compile` and `training.shard` exclude each other: leave one"):
        Training(compile=True, shard=True)
    with pytest.raises(
        ArgumentError, match=r"`training.batch_size` must be a multiple of `training.accumulate`, 3, got"
    ):
        Training(batch_size=8, accumulate=3)
    plain = Training(sync_batch_norm=True)
    distributed.check_device(plain, CPU)
    network = classifier_of(ConvNet(3))
    assert distributed.synchronise_batch_norm(network, plain) is network


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_a_batch_are_not_for_losses_with_negatives(method):
    plan = plan_of(METHODS[method]())
    if method in ("cross_entropy", "cgc_no_negatives", "gcc", "bce_head", "energy"):
        distributed.check_plan(Training(accumulate=2), plan)
    else:
        with pytest.raises(ArgumentError, match=r"`training.accumulate` 2 would change the loss of \w+Step: an image"):
            distributed.check_plan(Training(accumulate=2), plan)


def test_two_phases_of_one_network_are_not_sharded():
    with pytest.raises(ArgumentError, match=r"one phase: SupConStep and ClassifierStep train parts of one network"):
        distributed.check_plan(Training(shard=True), plan_of(SupCon()))
    distributed.check_plan(Training(shard=True), plan_of(CGC()))


def test_a_synchronised_batch_norm_keeps_names_values_and_activations(two):
    """timm's batch norms hold the activation, which torch's own converter would leave out."""
    for network in (ConvNet(3), timm.create_model("mobilenetv3_small_050", num_classes=3)):
        network.eval()
        before, images = dict(network.state_dict()), torch.rand(2, 3, 32, 32)
        expected = network(images)
        found = distributed.synchronise_batch_norm(classifier_of(network), Training(sync_batch_norm=True)).network
        kinds = {type(module) for module in found.modules() if "BatchNorm" in type(module).__name__}
        assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
        assert found.state_dict().keys() == before.keys()
        torch.testing.assert_close(found.eval()(images), expected)


def test_a_synchronised_batch_norm_behind_the_explained_layer_is_refused():
    images = torch.rand(2, 3, 32, 32)
    last, earlier = (plan_of(CGC(layer=layer)).phases[0].step for layer in (None, "features.0"))
    distributed.check_batch_norm(last, compiling.names_after_explained(last, images))
    with pytest.raises(ArgumentError, match=r"layer that CGCStep explains: batch norm 'features\.1\.1' comes after it"):
        distributed.check_batch_norm(earlier, compiling.names_after_explained(earlier, images))


def test_a_run_looks_for_synchronised_batch_norms_before_it_starts():
    recipe = Recipe("r", Digits(image_size=32), Model(), CGC(layer="features.0"), training=Training(epochs=2))
    plan = plan_of(recipe.method)
    on_all_processes(plan, recipe, CPU)
    asked = replace(recipe, training=replace(recipe.training, sync_batch_norm=True))
    with pytest.raises(ArgumentError, match=r"batch norm 'features\.1\.1' comes after it"):
        on_all_processes(plan, asked, CPU)


@pytest.mark.parametrize(("num", "accumulate"), [(1, 1), (2, 1), (3, 1), (1, 2), (3, 2)])
def test_the_processes_read_each_image_of_a_batch_once(monkeypatch, num, accumulate):
    """In the order of one process; and nothing that is not theirs."""

    class Numbers:
        name, classes = "numbers", ("0",)

        def __len__(self):
            return 27

    read = []

    def batch(self, positions):
        numbers = [number for _, number in positions]
        read.extend(numbers)
        return numbers

    monkeypatch.setattr(TrainingViews, "batch", batch)
    monkeypatch.setattr(Batch, "join", staticmethod(lambda batches: [number for one in batches for number in one]))
    views = TrainingViews(Numbers(), resize=8, size=8, augmentation=Augmentation(), seed=1)
    options = Training(batch_size=12, accumulate=accumulate)
    whole = list(TrainingLoader([views], batch_size=12).batches(1))
    read.clear()
    monkeypatch.setattr(ranks, "world_size", lambda: num)
    shares = []
    for number in range(num):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        parts = distributed.own_parts(options)
        assert len(parts) == accumulate
        found = list(TrainingLoader([views], batch_size=12, parts=parts).batches(1, start=1))
        assert [len(part) for part in found] == [12 // num // accumulate] * accumulate
        shares += [index for part in found for index in part]
    assert shares == whole[1] == read


def test_each_process_has_random_numbers_of_its_own():
    from contrex.training.loop import step_seed

    seeds = [step_seed(1, 2, rank) for rank in range(4)]
    assert len(set(seeds)) == 4
    assert seeds[0] == step_seed(1, 2)


def test_other_commands_are_for_one_process(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["recipes"]) == 2
    message = "contrex recipes is for one process: start it without torchrun, which runs train, evaluate, reproduce"
    assert message in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(
        ArgumentError, match=r"`--nproc-per-node` must be at most 4, the GPUs of this machine: process 4"
    ):
        ranks._take_gpu(4, 4)


# --- torch.compile --------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Blocks of one class in stages; the last one is explained; a head with a hidden layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.stages = nn.Sequential(*(nn.Sequential(Block(), Block()) for _ in range(2)))
        self.fc = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, images):
        return self.fc(self.stages(self.stem(images)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


@pytest.mark.parametrize(
    ("method", "pieces"),
    [
        (METHODS["cross_entropy"](), [""]),
        (CGC(), ["stem", "stages.0", "stages.1"]),
        (CGC(layer="stages.1"), ["stem", "stages.0", "stages.1.0", "stages.1.1"]),
        (CGC(layer="stages.0.1"), ["stem", "stages.0.0"]),
        (SupCon(), ["stem", "stages"]),
        (METHODS["excon"](layer="stages.0"), ["stem", "stages.0.0", "stages.0.1"]),
    ],
)
def test_what_comes_before_the_explained_layer_is_compiled(monkeypatch, method, pieces):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, backend: compiled.append(self))
    step = plan_of(method, Residual()).phases[0].step
    state = {name: value.clone() for name, value in step.state_dict().items()}
    assert compiling.compile_network(step, torch.rand(2, 3, 16, 16)) == pieces
    assert compiled == [step.network.get_submodule(name) for name in pieces]
    assert all(torch.equal(value, state[name]) for name, value in step.state_dict().items())


@pytest.mark.parametrize(
    "method",
    [METHODS["excon"](explainer=name) for name in ("gradient", "hires_cam(fuse='mean(stages.0, stages.1)')")],
    ids=["gradient", "fuse"],
)
def test_an_explainer_that_looks_into_everything_is_not_compiled(method):
    step = plan_of(method, Residual()).phases[0].step
    with pytest.raises(ArgumentError, match=r"`training.compile` and `method.view_layer` are about what comes before"):
        compiling.compile_network(step, torch.rand(2, 3, 16, 16))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile looks at its inputs
@pytest.mark.parametrize(
    ("method", "freeze"),
    [
        *((name, ()) for name in ("cross_entropy", "cgc", "cgc_no_negatives", "supcon", "exconb")),
        ("cgc", ("bn1", "layer2")),
        ("cgc", ("trunk",)),
        ("cross_entropy", ("layer1", "layer4")),
    ],
)
def test_compiled_runs_are_the_runs_that_are_not(tmp_path, monkeypatch, method, freeze):
    """Through the loop, validation included; blocks are compiled, not silently run as they are."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    chosen = METHODS[method](**({"resolution": 32} if "cgc" in method else {}))
    model = Model("torchvision:resnet18", mean=(0.5,), std=(0.25,))
    recipe = replace(tiny(epochs=1, freeze=freeze), method=chosen, model=model)
    plain = train(recipe, tmp_path / "plain", console=quiet()).network
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = train(replace(recipe, training=replace(recipe.training, compile=True)), tmp_path / "c", console=quiet())
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert not any("limit" in reason for reason in counters["unimplemented"])
    for one, other in zip(plain.state_dict().values(), found.network.state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)
