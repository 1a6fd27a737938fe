"""Several processes: their gradients, runs and records are those of one, and they end together.

One process computes here what the others are compared with. The processes of a module's jobs are started once.
"""

import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from rich.console import Console

from contrex.errors import LayerError
from contrex.evaluation import PROTOCOLS
from contrex.methods import METHODS
from contrex.settings import CrossEntropy, Folder, Labelled, Optimizer, Retrofit, SupCon
from contrex.training import load_trained, read_log, train
from contrex.training.checkpoint import Checkpoints
from distributed import jobs, processes
from distributed.jobs import SEEDS, own_gradients, plan_of, share, whole_batch
from training.runs import quiet, tiny
from training.test_phases import recipe_of
from training.test_retrofit_runs import photos
from training.test_step_life import EXAMPLE

PHASED = ("supcon", "supcon_ori", "simclr", "excon", "exconb")
"""Their two phases are not for FSDP2."""

CASES = {
    **{f"{method}, convnet": (method, "convnet", {}, {}) for method in METHODS},
    "cgc, mlp": ("cgc", "mlp", {}, {}),
    "cgc, queue": ("cgc", "convnet", {"queue": 8}, {}),
    "exconb, published code": ("exconb", "mlp", {"variant": "published-code"}, {}),
    "cgc, maps only": ("cgc", "mlp", {"weight": 1e12}, {}),  # nothing is left of the labels' term
    "sharded cgc, unlabelled": ("cgc", "mlp", {"contrast": "weighted"}, {"unlabelled": 12, "shard": True}),
    "retrofit, unlabelled": ("retrofit", "convnet", {"label_weight": 0.5, "queue": 8}, {"unlabelled": 12}),
    "retrofit, frozen": (
        "retrofit",
        "convnet",
        {"trained": ("all",), "label_weight": 2.0, "incomplete": 0.5},
        {"freeze": ("features.0",)},
    ),
    "sharded retrofit": (
        "retrofit",
        "mlp",
        {"trained": ("all",), "contrast": "weighted", "incomplete": 0.7},
        {"shard": True},
    ),
    "cgc, frozen above": ("cgc", "mlp", {"layer": "features.0"}, {"freeze": ("features.2", "head.0")}),
    "cgc, views of a layer": ("cgc", "convnet", {"view_layer": "features.0"}, {"unlabelled": 12}),
    "cgc, probe": ("cgc", "convnet", {}, {"freeze": ("trunk",)}),
    "sharded cgc": ("cgc", "convnet", {"queue": 8}, {"shard": True}),
}
NOT_FOR = {
    "flat": {"gcc"},  # its composites are larger than the images, and these two take one size
    "token": {"gcc"},
    "convolutional": {"supcon", "supcon_ori", "simclr", "excon", "exconb", "bce_head"},  # they need a linear classifier
}
EVERY = {
    f"{method}, {network}{', sharded' * shard}": (method, network, {}, {"shard": shard})
    for network in jobs.NETWORKS
    for method in METHODS
    for shard in (False, True)
    if method not in NOT_FOR.get(network, ()) and not (shard and method in PHASED)
} | {
    "cgc, earlier layer": ("cgc", "convnet", {"layer": "features.0"}, {}),
    "cgc, contrast and queue": ("cgc", "mlp", {"queue": 100, "contrast": "weighted"}, {}),
    "no negatives, published code": ("cgc_no_negatives", "mlp", {"variant": "published-code"}, {}),
    "cgc, unlabelled": ("cgc", "convnet", {"queue": 8}, {"unlabelled": 12}),
    "retrofit, token head": ("retrofit", "token", {"negatives": False, "distillation_temperature": 2.0}, {}),
    "sharded retrofit, unlabelled": (
        "retrofit",
        "convnet",
        {"label_weight": 0.5, "explainer": "gradient_times_input"},
        {"unlabelled": 6, "shard": True},
    ),
    "cgc, frozen below": ("cgc", "convnet", {}, {"freeze": ("features.0",)}),
    "exconb, frozen": ("exconb", "convnet", {}, {"freeze": ("features.1",)}),
    "sharded cgc, frozen below": ("cgc", "convnet", {}, {"freeze": ("features.0",), "shard": True}),
    "sharded no negatives, frozen above": (
        "cgc_no_negatives",
        "mlp",
        {"layer": "features.0"},
        {"freeze": ("features.2",), "shard": True},
    ),
    "sharded cgc, probe": ("cgc", "mlp", {}, {"freeze": ("trunk",), "shard": True}),
    "sharded cgc, views of a layer": ("cgc", "convnet", {"view_layer": "features.0"}, {"shard": True}),
    "retrofit, views of the trunk": ("retrofit", "convnet", {"view_layer": "trunk"}, {}),
    "excon, weighted": ("excon", "convnet", {"contrast": "weighted", "explainer": "hires_cam"}, {}),
    "no negatives, maps only": ("cgc_no_negatives", "convnet", {"weight": 1e12}, {}),
    "gcc, maps only": ("gcc", "convnet", {"weight": 1e12}, {}),
    "cgc, unlabelled, every cell": ("cgc", "flat", {"views": "transformed"}, {"unlabelled": 6}),
    "no negatives, unlabelled": ("cgc_no_negatives", "mlp", {"variant": "published-code"}, {"unlabelled": 6}),
    "sharded no negatives": ("cgc_no_negatives", "flat", {"variant": "published-code"}, {"shard": True}),
}
MISTAKES = {
    "detached": {name: CASES[name] for name in ("cgc, convnet", "supcon, convnet")},
    "bypassed": {name: CASES[name] for name in ("cross_entropy, convnet", "cgc, mlp")},
}
"""What neither an error nor a look at one process would show, and cases in which it matters."""

ACCUMULATED = {
    "cross_entropy": ("cross_entropy", "convnet", {}, {"accumulate": 3}),
    "no negatives": ("cgc_no_negatives", "mlp", {}, {"accumulate": 3}),
    "retrofit": ("retrofit", "convnet", {"negatives": False, "trained": ("all",)}, {"accumulate": 3}),
    "sharded": ("cgc_no_negatives", "mlp", {}, {"accumulate": 3, "shard": True}),
}
"""For two processes, which have three images each."""

ONE_GROUP = ("content_heatmap", "insertion_auc")


@pytest.fixture(scope="module")
def alone():
    return own_gradients(CASES)


@pytest.fixture(scope="module")
def pair():
    """What two processes find, each job by name."""
    published = {"published": ("cgc", "convnet", {"variant": "published-code", "queue": 100}, {})}
    return processes.results_of(
        2,
        jobs.several,
        ("gradients", own_gradients, (CASES,)),
        ("accumulated", own_gradients, (ACCUMULATED,)),
        ("published", own_gradients, (published,)),
        *((kind, jobs.with_a_mistake, (kind, cases)) for kind, cases in MISTAKES.items()),
        ("rows", jobs.gathered_rows_of_different_lengths, ()),
        ("one group", jobs.evaluated, ONE_GROUP, {"limit": 3}),
        ("scale", jobs.scale_of_logits, ()),
    )


@pytest.fixture(scope="module")
def three():
    return processes.results_of(
        3,
        jobs.several,
        ("gradients", own_gradients, (CASES,)),
        ("rows", jobs.gathered_rows_of_different_lengths, ()),
    )


def check(found, alone):
    """The loss, its terms, every gradient and the queue of each process are those of one with the whole batch."""
    for place, expected in alone.items():
        for one in (everything[place] for everything in found):
            assert one["loss"] == pytest.approx(expected["loss"], rel=1e-10), place
            assert one["logs"] == pytest.approx(expected["logs"], rel=1e-6), place
            assert one["queue"] == found[0][place]["queue"], place
            assert one["digest"] == found[0][place]["digest"], place
        if expected["queue"] is not None:
            assert found[0][place]["queue"] == pytest.approx(expected["queue"], rel=1e-10, abs=1e-14), place
        gradients = found[0][place]["gradients"]
        assert gradients.keys() == expected["gradients"].keys(), place
        for name, gradient in expected["gradients"].items():
            error = (gradients[name] - gradient).abs().max()
            assert error <= 1e-10 * gradient.abs().max() + 1e-13, (place, name, error)


def of(found, name):
    return [everything[name] for everything in found]


def test_gradients_of_two_processes_are_those_of_one(pair, alone):
    check(of(pair, "gradients"), alone)


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in MISTAKES.items() for case in cases])
def test_a_mistake_in_the_exchange_would_be_seen(pair, alone, kind, case):
    found = [{place: own[kind][place] for place in own[kind] if place[0] == case} for own in pair]
    with pytest.raises(AssertionError):
        check(found, {place: alone[place] for place in found[0]})


@pytest.mark.slow
def test_gradients_of_three_processes_are_those_of_one(three, alone):
    check(of(three, "gradients"), alone)


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 3])
def test_every_method_and_head_on_several_processes(num):
    check(processes.results_of(num, own_gradients, EVERY, timeout=900), own_gradients(EVERY))


def test_the_scale_of_logits_is_that_of_all_images(pair):
    expected = jobs.scale_of_logits()
    assert 0.6 < expected < 1.9
    assert abs(expected - 1) > 0.01
    one, two = of(pair, "scale")
    assert one == two == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", sorted(NOT_FOR["convolutional"]))
def test_a_head_that_is_no_linear_classifier_is_refused(method):
    with pytest.raises(LayerError, match=r"must end in one linear classifier, ConvolutionalNet ends in Conv2d"):
        plan_of(method, "convolutional")


def test_the_processes_had_different_numbers_of_background_images():
    """Otherwise the test of ExConB would not see what it is for; one process has none."""
    found = []
    for network in ("convnet", "mlp"):
        step = plan_of("exconb", network).phases[0].step
        parts = [share(whole_batch(SEEDS[-1]), number, 2) for number in range(2)]
        found.append([int((~step.explained_views(part)[1]).sum()) for part in parts])
    assert all(one != other for one, other in found)
    assert 0 in found[1]


def test_accumulated_gradients_are_those_of_the_whole_batch(pair):
    """In one process, and in two, where only the last part is exchanged."""
    for found in ([own_gradients(ACCUMULATED)], of(pair, "accumulated")):
        check(found, own_gradients({name: (*case, {}) for name, (*case, _) in ACCUMULATED.items()}))


def test_the_published_code_contrasts_within_a_process(pair):
    """Its loss is the mean of what each process has for its own images, not that of the whole batch; the queue is that
    of one process with all images."""
    first, last = map(whole_batch, SEEDS)
    losses, queues = [], []
    for parts in ([share(last, number, 2) for number in range(2)], [last]):
        steps = [published_step() for _ in parts]
        for step in steps:
            step(first)
        losses.append(sum(step(part).loss.item() for step, part in zip(steps, parts, strict=True)) / len(parts))
        queues.append(steps[0].queue)
    found = [one["published"]["published", 0] for one in pair]
    assert [one["loss"] for one in found] == pytest.approx([losses[0]] * 2, rel=1e-10)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert found[0]["queue"] == found[1]["queue"] == pytest.approx(queues[1].flatten().tolist(), rel=1e-10)


def published_step():
    phase = plan_of("cgc", variant="published-code", queue=100).phases[0]
    phase.begin(0)
    phase.step.network.eval()
    return phase.step


def test_rows_of_different_lengths_find_their_way_back(pair):
    """d/dx of sum_r (r + 1) x^2 is 2 x times the sum of the weights of all processes."""
    check_rows(of(pair, "rows"))


@pytest.mark.slow
def test_rows_of_three_processes_find_their_way_back(three):
    check_rows(of(three, "rows"))


def check_rows(found):
    num = len(found)
    for number, (rows, gradient) in enumerate(found):
        assert rows.flatten().tolist() == [10 * own + i + 1 for own in range(num) for i in range(own)]
        own = torch.arange(1.0, number + 1, dtype=torch.float64)[:, None] + 10 * number
        assert torch.equal(gradient, 2 * own * sum(range(1, num + 1)))


# --- measuring ------------------------------------------------------------------------------------------------------


def assert_same_record(found, alone):
    """All of it, but when it was made; as text, where an interval that is not known equals itself."""
    assert repr(replace(found.record, created=alone.record.created)) == repr(alone.record)
    assert found.samples == alone.samples
    for one, other in zip(found.gallery.heatmaps, alone.gallery.heatmaps, strict=True):
        assert (one == other).all()


def test_records_of_two_processes_are_that_of_one(pair):
    """One group in all, so that a process has no images."""
    alone = jobs.evaluated(*ONE_GROUP, limit=3)
    for found in of(pair, "one group"):
        assert_same_record(found, alone)


@pytest.mark.slow
def test_every_metric_of_two_and_of_three_processes():
    every = [name for name in PROTOCOLS if name != "human_alignment"]  # has files, and nothing else of its own
    alone = jobs.evaluated(*every)
    assert alone.record.metric("grid_pointing_game_2").num_counted == 12
    for num in (2, 3):
        for found in processes.results_of(num, jobs.evaluated, *every, timeout=300):
            assert_same_record(found, alone)


# --- runs -----------------------------------------------------------------------------------------------------------


def weights(folder):
    content = Checkpoints(folder).load()
    return {f"{number}.{name}": v for number, step in enumerate(content["steps"]) for name, v in step.items()}


def assert_same_run(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def runs_of(folder, recipe, num, step=3):
    """A run that goes through, and one that is resumed after the last process was asked to stop in `step` (from 0)."""
    often = replace(recipe, training=replace(recipe.training, checkpoint_minutes=0.0))
    return [
        ("straight", jobs.trained, (recipe, folder / "straight")),
        ("stopped", jobs.trained, (often, folder / "stopped"), {"fault": ("SIGTERM", num - 1, step)}),
        ("resumed", jobs.trained, (recipe, folder / "stopped"), {"resume": True}),
    ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder with the runs of two processes, and what each of them said of them."""
    folder = tmp_path_factory.mktemp("runs")
    found = processes.results_of(
        2,
        jobs.several,
        *runs_of(folder, tiny(), 2),
        ("plain", jobs.trained, (tiny(), folder / "plain"), {"plain": True}),
        ("sharded", jobs.trained, (tuned(shard=True), folder / "sharded")),
        ("unlabelled", jobs.trained, (semi(), folder / "unlabelled"), {"plain": True}),
        ("nan", jobs.trained, (tiny(), folder / "nan"), {"fault": ("nan", 1, 1)}),
        ("full disk", jobs.trained_on_a_full_disk, (tiny(), folder / "full")),
        ("unreadable", jobs.trained, (on_photos(folder / "photos"), folder / "unreadable")),
        ("refused", jobs.trained, (tiny(), folder / "straight")),
        ("uneven", jobs.trained, (tiny(batch_size=9), folder / "uneven")),
    )
    return folder, found


@pytest.fixture(scope="module")
def ran_longer(tmp_path_factory):
    """As `ran`, the runs of slow tests."""
    folder = tmp_path_factory.mktemp("longer-runs")
    found = processes.results_of(
        2,
        jobs.several,
        ("turns", jobs.trained, (in_turns(), folder / "turns"), {"plain": True}),
        ("counted", jobs.counted, (in_turns(), folder / "counted")),
        ("taught", jobs.taught, (tiny(accumulate=2), folder / "taught", f"{EXAMPLE}:digits")),
        ("taught, sharded", jobs.taught, (tiny(shard=True), folder / "taught-sharded", f"{EXAMPLE}:digits")),
        ("nan gradient", jobs.trained, (tiny(), folder / "nan-gradient"), {"fault": ("nan gradient", 1, 1)}),
        ("sharded nan", jobs.trained, (tiny(shard=True), folder / "sharded-nan"), {"fault": ("nan", 1, 1)}),
        ("orphaned", jobs.trained, (tiny(), folder / "orphaned"), {"fault": ("orphan", 1, 3)}),
    )
    return folder, found


def in_turns():
    """An epoch of the encoder, one of the classifier, and again."""
    return replace(recipe_of("exconb"), method=SupCon())


def tuned(**training):
    """Averaged weights, a frozen block, and a rate of the classifier."""
    recipe = tiny(ema=0.8, freeze=("features.0",), **training)
    return replace(recipe, optimizer=replace(recipe.optimizer, head_lr=0.2))


def test_the_average_is_the_same_in_all_processes_and_in_the_checkpoint(ran):
    folder, found = ran
    _, classifier, _ = load_trained(folder / "sharded")
    digest = jobs.digest(classifier.network.state_dict().values())
    assert of(found, "sharded") == [digest, digest]
    content = Checkpoints(folder / "sharded").load()
    assert content["averages"].keys() == {"features.1.0.weight", "features.1.1.weight", "features.1.1.bias",
                                          "features.2.0.weight", "features.2.1.weight", "features.2.1.bias",
                                          "fc.weight", "fc.bias"}  # fmt: skip
    assert all(type(value) is torch.Tensor for value in content["averages"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taught", "taught, sharded"])
def test_the_teacher_is_the_same_in_all_processes_and_in_the_checkpoint(ran_longer, name):
    """It follows once a step in each, also with parts of a batch, and is not the network that it follows."""
    folder, found = ran_longer
    one, other = of(found, name)
    assert one == other
    steps, teacher, network = one
    assert steps == [1, 2, 3, 4, 5, 6]
    (state,) = Checkpoints(folder / name.replace(", ", "-")).load()["steps"]
    saved = {prefix: [v for k, v in state.items() if k.startswith(prefix)] for prefix in ("teacher.", "network.")}
    assert [jobs.digest(values) for values in saved.values()] == [teacher, network]
    assert teacher != network


def semi(**training):
    """Images without labels, twice as many in a step as labelled ones."""
    few = Labelled(per_class=1, rest="unlabelled", unlabelled_batch_size=12)
    return replace(tiny(**{"batch_size": 6, "epochs": 6, **training}), labelled=few)


def test_unlabelled_images_of_two_processes_are_those_of_one_to_rounding(ran, tmp_path):
    folder, _ = ran
    jobs.trained(semi(), tmp_path, plain=True)
    assert len(read_log(tmp_path)) == 12
    for one, other in zip(read_log(tmp_path), read_log(folder / "unlabelled"), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def on_photos(root):
    """Six pictures to train on, one of which cannot be read; both processes have some of the only batch."""
    for split, num in (("train", 3), ("val", 1)):
        for label in range(2):
            (root / split / f"class{label}").mkdir(parents=True)
            for i in range(num):
                picture = Image.new("RGB", (40, 36), (40 * i, 200 * label, 9))
                picture.save(root / split / f"class{label}" / f"{i}.png")
    (root / "train" / "class1" / "2.png").write_bytes(b"no picture")
    return replace(tiny(batch_size=6), data=Folder(root, image_size=32, resize=32), method=CrossEntropy())


def test_the_processes_of_a_run_end_with_the_same_weights(ran):
    folder, found = ran
    assert len({one["straight"] for one in found} | {one["resumed"] for one in found}) == 1
    assert [line["step"] for line in read_log(folder / "straight")] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_signal_to_one_process_stops_all_of_them_after_a_checkpoint(ran):
    """And the run that is resumed is, bit for bit, the one that was not stopped."""
    folder, found = ran
    for kind, message, code in of(found, "stopped"):
        assert (kind, code) == ("InterruptedRunError", 143)
        assert "stopped by SIGTERM after step 4; continue with: torchrun --nproc-per-node 2 -m contrex train" in message
    assert_same_run(folder / "straight", folder / "stopped")


@pytest.mark.slow
def test_processes_without_their_torchrun_stop_after_a_checkpoint(ran_longer, tmp_path):
    """Also those on machines where it is alive; what is left is resumed."""
    folder, found = ran_longer
    for kind, message, code in of(found, "orphaned"):
        assert (kind, code) == ("InterruptedRunError", 129)
        assert message.startswith("stopped by the end of torchrun after step 4; continue with: torchrun")
    assert Checkpoints(folder / "orphaned").load()["place"]["step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 3])
def test_every_kind_of_run_is_resumed_exactly(tmp_path, num):
    """Phases in turns and one after the other, weights shared out, AdamW, parts of a batch; one run is resumed at the
    end of an epoch, where weights that are shared out are validated before any step."""
    adamw = Optimizer("adamw", lr=1e-3)
    six = {"batch_size": 6}
    recipes = {
        "exconb": recipe_of("exconb", **six),
        "supcon_ori": recipe_of("supcon_ori", **six),
        "cgc": tiny(**six),
        "sharded": tiny(**six, shard=True),
        "sharded adamw": replace(tiny(**six, shard=True), optimizer=adamw),
        "tuned": tuned(**six),
        "unlabelled": semi(),
        "sharded tuned": tuned(**six, shard=True),
        "parts": replace(tiny(batch_size=12, accumulate=2), method=CrossEntropy()),
    }
    for name, recipe in recipes.items():
        folder = tmp_path / name
        step = 3 if name != "sharded" else 26 // 6 - 1
        found = processes.results_of(num, jobs.several, *runs_of(folder, recipe, num, step))
        assert len({one["straight"] for one in found} | {one["resumed"] for one in found}) == 1, name
        assert {one["stopped"][2] for one in found} == {143}
        assert_same_run(folder / "straight", folder / "stopped")


@pytest.mark.slow
def test_a_run_whose_weights_are_shared_out_is_that_of_whole_ones(tmp_path):
    averaged = tiny(ema=0.8)
    averaged = replace(averaged, optimizer=replace(averaged.optimizer, head_lr=0.2))
    alone = replace(tiny(batch_size=6), data=photos(tmp_path / "photos"), method=Retrofit(weight=2.0, resolution=32))
    recipes = {
        "cgc": tiny(),
        "cross_entropy": replace(tiny(), method=CrossEntropy()),
        "averaged": averaged,
        "photos without labels": replace(alone, model=replace(alone.model, num_classes=10)),
    }
    for kind, recipe in recipes.items():
        folder = tmp_path / kind
        sharded = replace(recipe, training=replace(recipe.training, shard=True))
        found = processes.results_of(
            2,
            jobs.several,
            ("whole", jobs.trained, (recipe, folder / "whole"), {"plain": True}),
            ("sharded", jobs.trained, (sharded, folder / "sharded"), {"plain": True}),
        )
        assert isinstance(found[0]["sharded"], str), found[0]["sharded"]
        first, second = weights(folder / "whole"), weights(folder / "sharded")
        assert first.keys() == second.keys()
        for name in first:
            torch.testing.assert_close(second[name], first[name], rtol=1e-4, atol=1e-6)


def test_a_run_of_two_processes_is_that_of_one_to_rounding(ran, tmp_path):
    """Without batch norm: the same batches, crops, order and negatives."""
    folder, _ = ran
    jobs.trained(tiny(), tmp_path, plain=True)
    for one, other in zip(read_log(tmp_path), read_log(folder / "plain"), strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    first, second = weights(tmp_path), weights(folder / "plain")
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_phases_in_turns_on_two_processes_are_those_of_one_to_rounding(ran_longer, tmp_path):
    folder, found = ran_longer
    assert isinstance(found[0]["turns"], str), found[0]["turns"]
    jobs.trained(in_turns(), tmp_path, plain=True)
    assert any("classifier" in name for line in read_log(tmp_path) for name in line)
    for one, other in zip(read_log(tmp_path), read_log(folder / "turns"), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
def test_a_step_is_one_call_of_ddp_and_one_backward_pass(ran_longer):
    """More of either, and DDP adds up gradients in silence that are not those of the sum."""
    _, found = ran_longer
    assert of(found, "counted") == [(12, 12, 12)] * 2


@pytest.mark.slow
def test_a_compiled_run_of_two_processes_is_that_of_one_to_rounding(tmp_path):
    for found in processes.results_of(2, jobs.compiled, tiny(epochs=1), tmp_path):
        assert isinstance(found[0], dict), found
        plain, compiled, num_pieces = found
        assert num_pieces > 0
        for name, value in plain.items():
            torch.testing.assert_close(compiled[name], value, rtol=1e-5, atol=1e-7)


def test_the_parts_of_accumulation_are_the_run_of_the_whole_batch(ran, tmp_path):
    recipe = replace(tiny(), method=CrossEntropy())
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    jobs.trained(recipe, whole, plain=True)
    jobs.trained(replace(recipe, training=replace(recipe.training, accumulate=4)), parts, plain=True)
    for one, other in zip(read_log(whole), read_log(parts), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_another_number_of_processes_may_go_on_and_says_what_that_means(ran, tmp_path):
    shutil.copytree(ran[0] / "straight", tmp_path / "two")
    said = Console(file=io.StringIO(), width=300)
    train(tiny(), tmp_path / "two", resume=True, console=said)
    assert "the run had 2 processes so far and goes on with 1" in said.file.getvalue()
    assert "so it is not bit-exact" in said.file.getvalue()
    again = Console(file=io.StringIO())
    train(tiny(), tmp_path / "one", console=quiet())
    train(tiny(), tmp_path / "one", resume=True, console=again)
    assert again.file.getvalue() == ""


def test_a_nan_in_one_process_stops_all_of_them(ran):
    folder, found = ran
    for kind, message, code in of(found, "nan"):
        assert (kind, code) == ("NonFiniteLossError", 3)
        assert "became NaN or infinite at step 1 of epoch 0; no single image does it" in message
    assert len(json.loads((folder / "nan" / "nonfinite.json").read_text())["paths"]) == 8
    assert [line["step"] for line in read_log(folder / "nan")] == [1]


@pytest.mark.slow
def test_a_nan_gradient_of_one_process_and_one_of_weights_that_are_shared_out_stop_all_of_them(ran_longer):
    """The loss is finite in the first case, everywhere."""
    folder, found = ran_longer
    for name in ("nan gradient", "sharded nan"):
        for kind, message, code in of(found, name):
            assert (kind, code) == ("NonFiniteLossError", 3), message
            assert "at step 1 of epoch 0" in message
        assert [line["step"] for line in read_log(folder / name.replace(" ", "-"))] == [1]


def test_what_fails_in_one_process_is_said_by_all(ran):
    _, found = ran
    assert {kind for kind, *_ in of(found, "unreadable")} == {"ImageError", "ProcessError"}
    assert all("cannot read image" in message and "2.png" in message for _, message, _ in of(found, "unreadable"))
    first, second = of(found, "full disk")
    assert first == ("CheckpointError", "no space left", 2)
    assert second == ("ProcessError", "process 0 of 2 has stopped: no space left", 1)
    for kind, message, _ in of(found, "refused"):
        assert kind == "CheckpointError"
        assert "already holds a run: continue it with --resume" in message
    for _, message, _ in of(found, "uneven"):
        assert message == "`training.batch_size` 9 cannot be shared evenly by 2 processes: take 8 or 10."


@pytest.mark.parametrize(("kind", "said"), [("error", "ZeroDivisionError: a bug in one process"), ("SIGKILL", None)])
def test_a_process_that_fails_where_others_wait_for_it_ends_them(tmp_path, kind, said):
    """In the middle of a step, where the other one waits for its heatmaps: it ends at once, and knows why."""
    first, second = processes.run(2, jobs.trained, tiny(), tmp_path, False, False, (kind, 1, 1), timeout=30)
    assert (first.kind, first.exit_code) == ("ProcessError", 1)
    if said is None:
        assert second is None
        assert first.message.startswith("another process of this run is gone or does not answer")
    else:
        assert first.message == f"process 1 of 2 has stopped: {said}"
        assert second.kind == "ZeroDivisionError"
