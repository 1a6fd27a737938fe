"""The commands, as a person types them."""

import json
import re
import resource
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import archives
import contrex
from contrex.cli import COMMANDS, main
from contrex.models import build_network
from contrex.recipes import RECIPES, recipe_from
from contrex.recipes.tiny_imagenet import TEN_CLASSES
from contrex.settings import GCC, Cifar, Digits, ExCon, FineGrained, Folder, ImageNet, SupCon, TinyImageNet
from contrex.training import saved_recipe

SMALL_DIGITS = [
    *("--data.num-train", "16", "--data.num-val", "8", "--data.num-test", "34", "--data.image-size", "32"),
    *("--data.digit-size", "14", "18", "--training.batch-size", "8", "--training.epochs", "1"),
    *("--evaluation.num-bootstrap", "20", "--evaluation.gallery", "3"),
    *("--training.device", "cpu", "--evaluation.device", "cpu"),
]


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten classes of pictures in the folder layout, with boxes: 30 to train on, 10 to judge."""
    root = tmp_path_factory.mktemp("photos")
    rng, lines = np.random.default_rng(0), ["path,xmin,ymin,xmax,ymax,kind"]
    for split, num in (("train", 3), ("val", 1)):
        for label, name in enumerate(TEN_CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                array = rng.integers(0, 100, (72, 80, 3), dtype=np.uint8)
                array[20:50, 30:60, label % 3] += 15 * label
                Image.fromarray(array).save(folder / f"{i}.png")
                lines.append(f"{split}/{name}/{i}.png,30,20,60,50,body_from_trimap")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cgc"
    assert run("train", "digits_cgc", "--folder", folder, *SMALL_DIGITS) == 0
    return folder


# --- the shape of the command line ----------------------------------------------------------------------------------


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="no attribute 'GradCam'"):
        contrex.GradCam  # noqa: B018


def cpu_seconds(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.slow
def test_help_answers_at_once():
    """A test of the default suite sees that it imports no torch; how long it takes depends on what else runs."""
    assert min(cpu_seconds("-m", "contrex", "--help")[0] for _ in range(3)) < 0.5


@pytest.mark.slow
def test_importing_contrex_costs_little_more_than_torch():
    code = (
        "import time, torch; t = time.process_time(); import contrex; contrex.GradCAM; print(time.process_time() - t)"
    )
    bare = code.replace(" contrex.GradCAM;", "")
    assert float(cpu_seconds("-c", bare)[1]) < 0.5


def test_contrex_and_python_m_contrex_are_one_command():
    (script,) = entry_points(group="console_scripts", name="contrex")
    assert script.value == "contrex.cli:main"
    _, text = cpu_seconds("-m", "contrex", "--version")
    assert text == f"contrex {contrex.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "must be one of quickstart, train, .*; got 'trian'. Did you mean 'train'"),
        (["train", "digits_cg"], "got 'digits_cg'. Near it: digits_cgc,"),
        (["train"], "name a recipe"),
        (["train", "nothing/recipe.json"], "is not a saved recipe: No such file"),
        (["evaluate", "nowhere"], "there is no run nowhere: no such folder"),
        (["report", "nowhere"], "no record in nowhere"),
        (["explain", "x.jpg"], "`model.weights` is needed"),
        (["train", "pets_cgc", "--folder", "/nonexistent/x"], "data/pets"),
        (["train", "digits_cgc", "--training.epochs", "0"], "`training.epochs` must be at least 1, got 0"),
        (["train", "digits_cgc", "--optimizer.name", "adamw"], "add --optimizer.no-nesterov"),
        (["train", "pets_cgc", "--data.image-size", "0"], r"`data.image_size` must be from 1 to `data.resize` \(128\)"),
        (["train", "digits_cgc", "--model.options", "widths"], "KEY VALUE .*: 'widths' has no value"),
        (["train", "digits_cgc", "--folder", "typo", "--resume"], "--resume finds no run in typo"),
        (["train", "digits_cgc", "--evaluation.split", "tset"], "got 'tset'. Did you mean 'test'"),
        (["train", "digits_cgc", "--evaluation.device", "abacus"], "`device` 'abacus' cannot be used"),
        (["train", "digits_cgc", "--evaluation.contrast", "mena"], "`contrast` must be one of"),
        (["train", "digits_cgc", "--data.num-test", "0"], "`evaluation.split`: digits/test has no images"),
        (["quickstart", "--epochs", "0"], "`training.epochs` must be at least 1, got 0"),
        (["quickstart", "--seeds", "0"], "`seeds` must be at least 1, got 0"),
        (["evaluate", "--data.path", "x"], "`model.weights` is needed: an untrained network measures nothing"),
        (["evaluate", "--data.path", "x", "--limit", "0"], "`evaluation.limit` must be at least 1, got 0"),
        (["explain"], "name one photo or more: contrex explain PHOTO"),
        (
            ["explain", "x.jpg", "--run", "a", "--model.name", "timm:resnet18"],
            "--run and --model.* are two classifiers",
        ),
        (
            ["explain", "x.jpg", "--run", "a", "--output", "why"],
            r"`output` why needs the suffix of a format: .png, .jpg",
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    """And before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert not list(tmp_path.iterdir())
    error = capsys.readouterr().err.strip()
    assert error.startswith("contrex: ")
    assert "\n" not in error
    assert re.search(message, error)


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        run("train", "digits_cgc", "--method.wieght", "1")
    assert stop.value.code == 2
    assert "--method.weight" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run("report", trained / "evaluation-test", "--output", tmp_path / "file" / "page.html") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"contrex: (Not a directory|File exists): {tmp_path}/file.*\n", error)


def test_recipes_and_doctor(capsys):
    assert run("recipes") == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in RECIPES)
    assert run("doctor") == 0
    text = capsys.readouterr().out
    assert f"torch        {torch.__version__}" in text
    assert "its operators run with this torch" in text
    assert "BAD" not in text


def test_doctor_says_what_is_wrong(monkeypatch, capsys):
    import torchvision

    def mismatched(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", mismatched)
    assert run("doctor") == 1
    text = capsys.readouterr().out
    assert "BAD  torchvision  does not work with this torch (operator torchvision::nms does not exist)" in text


# --- train, evaluate, report, explain -------------------------------------------------------------------------------


def test_train_leaves_a_run_with_its_record(trained, capsys):
    record = json.loads((trained / "evaluation-test" / "record.json").read_text())
    assert [m["name"] for m in record["metrics"]][:3] == ["top1", "top5", "content_heatmap"]
    assert record["configuration"]["method"]["kind"] == "CGC"
    assert record["curves"]["val_top1"]
    assert (trained / "evaluation-test" / "samples.csv").read_text().count("\n") == 35


def test_the_resolved_recipe_runs_again(trained, tmp_path):
    assert run("train", trained / "recipe.json", "--folder", tmp_path / "again", "--no-evaluate") == 0
    first, second = ((folder / "metrics.jsonl").read_bytes() for folder in (trained, tmp_path / "again"))
    assert first == second


def test_evaluate_a_run(trained, tmp_path, capsys):
    words = ["--metrics", "top1", "content_heatmap", "--contrast", "weighted", "--output", tmp_path]
    assert run("evaluate", trained, *words, "--checkpoint", "best", "--limit", "10") == 0
    record = json.loads((tmp_path / "record.json").read_text())
    assert [m["num_counted"] + m["num_skipped"] for m in record["metrics"]] == [10, 10]
    assert record["metrics"][1]["protocol"]["contrast"] == "weighted"
    assert f"record: {tmp_path}" in capsys.readouterr().out


def test_a_run_is_what_its_checkpoint_says(trained, tmp_path):
    """recipe.json is there to be run again, and may be edited for it."""
    again = tmp_path / "run"
    shutil.copytree(trained, again)
    (again / "recipe.json").write_text("{}")
    assert run("evaluate", again, "--metrics", "top1", "--output", tmp_path / "record") == 0
    record = json.loads((tmp_path / "record" / "record.json").read_text())
    assert record["configuration"]["data"]["num_train"] == 16


def test_a_run_goes_on_and_is_measured_where_its_data_have_moved_to(photos, tmp_path):
    before, after, folder = tmp_path / "before", tmp_path / "after", tmp_path / "run"
    shutil.copytree(photos, before)
    words = ["tiny_imagenet10_cgc", "--folder", folder, "--training.batch-size", "8", "--training.epochs", "1"]
    words += ["--training.device", "cpu", "--evaluation.device", "cpu", "--evaluation.metrics", "top1", "top5"]
    assert run("train", *words, "--data.path", before, "--no-evaluate") == 0
    before.rename(after)
    assert run("train", *words, "--data.path", after, "--resume") == 0
    assert run("evaluate", folder, "--data.path", after, "--output", tmp_path / "record", "--limit", "5") == 0
    record = json.loads((tmp_path / "record" / "record.json").read_text())
    assert [m["num_counted"] for m in record["metrics"]] == [5, 5]
    assert record["configuration"]["data"]["path"] == str(after)
    assert saved_recipe(folder).data.path == before


@pytest.mark.slow
def test_the_network_of_a_recipe_can_be_exchanged(tmp_path, capsys):
    words = ["--folder", tmp_path, "--no-evaluate", *SMALL_DIGITS]
    words += ["--model.name", "timm:resnet10t", "--model.options", "output_stride", "16", "stem_type", "tiered"]
    assert run("train", "digits_cross_entropy", *words) == 0
    assert recipe_from(str(tmp_path)).model.options == {"output_stride": "16", "stem_type": "tiered"}
    resume = ["--folder", tmp_path, "--resume", "--no-evaluate"]
    for given in ([], ["stem_type", "deep"]):  # the saved options are replaced by what is given, or by nothing
        assert run("train", tmp_path, *resume, "--model.options", *given) == 2
        assert "different in model.options.output_stride, model.options.stem_type:" in capsys.readouterr().err
    assert run("train", tmp_path, *resume) == 0


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_unreadable_image_is_one_line(photos, tmp_path, workers, capsys):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "val" / TEN_CLASSES[3] / "0.png").write_bytes(b"no picture")
    words = ["tiny_imagenet10_cross_entropy", "--folder", tmp_path / "run", "--data.path", root]
    words += ["--training.batch-size", "8", "--training.epochs", "1", "--training.workers", workers]
    assert run("train", *words, "--training.device", "cpu", "--no-evaluate") == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert all(line.startswith("tiny_imagenet10_cross_entropy: ") for line in progress)
    assert re.fullmatch(r"contrex: cannot read image '.*0.png': .* Or leave .*: --data.on-bad-image skip\.", error)


def test_a_metric_for_more_classes_is_refused_before_training(photos, tmp_path, capsys):
    words = ["--data.path", photos, "--data.classes", *TEN_CLASSES[:3], "--folder", tmp_path / "run"]
    assert run("train", "tiny_imagenet10_cgc", *words) == 2
    assert "`evaluation.metrics` has top5, which needs at least 5 classes" in capsys.readouterr().err
    words = ["--data.path", photos, "--folder", tmp_path / "run", "--evaluation.layer", "layer9"]
    assert run("train", "tiny_imagenet10_cgc", *words) == 2
    assert "`layer` of ConvNet must be one of features, fc; got" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_report_of_runs(trained, tmp_path, capsys):
    page = tmp_path / "page.html"
    folder = trained / "evaluation-test"
    assert run("report", folder, folder, "--output", page, "--title", "Twice <the> same") == 0
    assert "Twice &lt;the&gt; same" in page.read_text()


def test_another_network_has_not_the_options_and_the_normalisation_of_the_recipes(tmp_path):
    """MobileNetV2 of the recipe has a mean of 0.5, and its builder's `pad_type`."""
    command = sys.modules["contrex.cli.train"]
    recipe = RECIPES["photos_retrofit"]()
    for words in (["--model", "torchvision:squeezenet1_1"], ["--seeds", "1", "--model.name=torchvision:squeezenet1_1"]):
        model = command._with_network(recipe, words).model
        assert (model.name, model.options, model.mean, model.std) == ("torchvision:squeezenet1_1", {}, None, None)
        assert model.weights == recipe.model.weights
    for words in (["--model.weights", "x"], ["--model", recipe.model.name]):
        assert command._with_network(recipe, words) == recipe
    digits = RECIPES["digits_cgc"]()
    assert command._with_network(digits, ["--model", "torchvision:resnet18"]).model.mean == digits.model.mean


def test_runs_that_are_measured_on_other_splits_are_not_put_side_by_side(tmp_path, capsys):
    names = ["digits_cross_entropy", "digits_few_shot_cross_entropy"]
    assert run("train", *names, "--seeds", "1", "--folder", tmp_path / "runs", *SMALL_DIGITS) == 2
    told = capsys.readouterr().err
    assert "another for each: test (digits_cross_entropy), val (digits_few_shot_cross_entropy). Give one" in told


def test_explain_with_a_run(trained, photos, tmp_path, capsys):
    picture = tmp_path / "why.png"
    photo = min((photos / "val").rglob("*.png"))
    words = ["--run", trained, "--target", "3", "--contrast", "5", "--side", "32", "--output", picture]
    assert run("explain", photo, *words) == 0
    text = capsys.readouterr().out
    assert "grad_cam: why 3 rather than 5?" in text
    assert text.count("%") == 5
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 500
    assert run("verify", picture.with_suffix(".json")) == 0
    assert "1 map are the same to the last bit" in capsys.readouterr().out
    assert run("verify", picture.with_suffix(".json"), "--run", tmp_path / "nowhere") == 1
    assert "nowhere is gone. Pass --run RUN if it is elsewhere" in capsys.readouterr().err


def test_explainers_have_options_and_several_are_measured_at_once(trained, photos, tmp_path, capsys):
    texts = ["grad_cam", "rise(num_masks=4, seed=1)", "occlusion( window=16 )"]
    words = ["--metrics", "top1", "insertion_auc", "--limit", "5", "--num-bootstrap", "20", "--gallery", "2"]
    assert run("evaluate", trained, *words, "--explainers", *texts) == 0
    out, err = capsys.readouterr()
    assert all(text in out for text in ("grad_", "num_masks=4", "window=16"))
    folders = [line.removeprefix("record: ") for line in out.splitlines() if line.startswith("record: ")]
    told = [json.loads(Path(folder, "record.json").read_text())["configuration"]["evaluation"] for folder in folders]
    assert [one["explainer"] for one in told] == ["grad_cam", "rise(num_masks=4, seed=1)", "occlusion(window=16)"]
    assert err.count(" images in ") == 1
    photo = min((photos / "val").rglob("*.png"))
    words = ["--run", trained, "--side", "32", "--output", tmp_path / "x.png", "--explainer"]
    assert run("explain", photo, *words, "rise(num_masks=4)") == 0
    assert "rise(num_masks=4): why " in capsys.readouterr().out
    for text, message in (("rise(num_mask=4)", "Did you mean 'num_masks'"), ("rise(4)", "each option needs its name")):
        assert run("explain", photo, *words, text) == 2
        assert message in capsys.readouterr().err
        assert run("evaluate", trained, "--explainers", text) == 2
        assert message in capsys.readouterr().err


def test_explain_the_top_two_classes_by_two_methods(trained, photos, tmp_path, capsys):
    photo = min((photos / "val").rglob("*.png"))
    words = ["--run", trained, "--top", "2", "--explainer", "grad_cam", "gradient", "--output", tmp_path / "two.png"]
    assert run("explain", photo, *words) == 0
    text = capsys.readouterr().out
    assert text.count("and not the others (weighted)?") == 4
    assert text.count("%") == 5
    assert re.findall(r"^(\w+) explains (.*)$", text, re.MULTILINE) == [("grad_cam", "features, 4 x 5")]
    assert run("explain", photo, "--run", trained, "--top", "0") == 2
    assert run("explain", photo, "--run", trained, "--top", "2", "--target", "3") == 2
    assert "--top 2 must be 1 or more, and cannot be combined with --target: give one" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::contrex.errors.LayerWarning")
def test_a_layer_that_gradient_flows_past_is_told_once_and_plainly(photos, tmp_path, capsys):
    torch.save(build_network("torchvision:squeezenet1_1", {}, num_classes=2).state_dict(), tmp_path / "w.pth")
    model = [
        "--model.name",
        "torchvision:squeezenet1_1",
        "--model.weights",
        tmp_path / "w.pth",
        "--model.num-classes",
        "2",
    ]
    words = [*sorted((photos / "val").rglob("*.png"))[:2], *model, "--target", "1", "--output", tmp_path / "why.png"]
    (tmp_path / "names.txt").write_text("goldfish\nblack stork\n")
    assert run("explain", *words, "--classes", tmp_path / "names.txt", "--layer", "features.12.expand1x1") == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert re.match(
        r"contrex: \d+% of the gradient .* flows past `layer` 'features.12.expand1x1' of SqueezeNet", told[0]
    )


def test_explainers_are_listed(capsys):
    assert run("metrics") == 0
    assert "content_heatmap            Content heatmap: the share of" in capsys.readouterr().out
    assert run("explainers") == 0
    lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if line.startswith("  ")]  # the others are headings
    assert len(lines) == len(contrex.EXPLAINERS)
    assert all(len(line.split()) > 2 for line in lines)


def test_explain_and_evaluate_with_a_weights_file(photos, tmp_path, capsys):
    torch.manual_seed(0)
    network = build_network("torchvision:squeezenet1_1", {}, num_classes=2)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = ["--model.name", "torchvision:squeezenet1_1", "--model.weights", tmp_path / "w.pth"]
    model += ["--model.num-classes", "2", "--model.mean", "0.5", "--model.std", "0.5"]
    (tmp_path / "names.txt").write_text("goldfish\nblack stork\n")
    two = sorted((photos / "val").rglob("*.png"))[:2]
    words = ["--classes", tmp_path / "names.txt", "--target", "Black stork", "--contrast", "weighted"]
    assert run("explain", *two, *model, *words, "--side", "64", "--output", tmp_path / "two.png") == 0
    assert capsys.readouterr().out.count("why black stork and not the others (weighted)?") == 2
    data = ["--data.path", photos, "--data.image-size", "64", "--data.resize", "64"]
    data += ["--data.classes", *TEN_CLASSES[:2]]
    words = ["--metrics", "top1", "content_heatmap", "--output", tmp_path / "evaluation", "--num-bootstrap", "20"]
    assert run("evaluate", *model, *data, *words) == 0
    assert "explains features, 3 x 4" in capsys.readouterr().err
    record = json.loads((tmp_path / "evaluation" / "record.json").read_text())
    assert record["metrics"][0]["num_counted"] == 2
    heatmaps = record["metrics"][1]["protocol"]
    assert (heatmaps["layer"], heatmaps["grid"]) == ("features", "3 x 4")


def test_explain_refuses(trained, photos, tmp_path, capsys):
    photo = min((photos / "val").rglob("*.png"))
    for words, message in (
        (["--target", "seven"], "`target` must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; got 'seven'"),
        (["--contrast", "weigthed"], "`contrast` must be one of"),
        (["--explainer", "gradcam"], "Near it: grad_cam"),
        (["--output", tmp_path / "x.xyz"], "has no picture format: end it in one of .png, .jpg"),
        (["--side", "0"], "`side` must be at least 1 pixel, got 0"),
    ):
        assert run("explain", photo, "--run", trained, *words) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert run("explain", tmp_path / "broken.jpg", "--run", trained) == 2
    assert "broken.jpg" in capsys.readouterr().err


@pytest.mark.slow
def test_quickstart_with_a_shortcut_reports_both_splits(tmp_path, monkeypatch, capsys):
    from contrex.recipes import digits
    from contrex.settings import Digits

    small = Digits(num_train=64, num_val=8, num_test=8, image_size=32, digit_size=(14, 18), num_clutter=2)
    monkeypatch.setattr(digits, "DATA", small)
    assert run("quickstart", "--folder", tmp_path, "--epochs", "1", "--shortcut", "0.9", "--jobs", "1") == 0
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "report-val.html").is_file()
    text = capsys.readouterr().out
    assert text.count("report: ") == 2
    assert text.count("Insertion AUC") == 2
    assert run("quickstart", "--folder", tmp_path, "--epochs", "1", "--shortcut", "0.9", "--jobs", "1") == 0


# --- every recipe, on 30 images or less, through the real command ---------------------------------------------------

QUICK = {"digits_gcc", "digits_10_percent_cgc", "tiny_imagenet10_cgc"}  # `trained` is digits_cgc


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Twenty images of 32 x 32 in ten classes, and ten to measure."""
    folder, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for split, num in (("train", 20), ("test", 10)):
        images = rng.integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", x=images, y=(np.arange(num) % 10).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory):
    """Six classes of four images of 64 x 64 as the archive of Tiny-ImageNet unpacks, and one each to measure."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    names = [f"n0000000{number}" for number in range(6)]
    (folder / "wnids.txt").write_text("\n".join(names))
    (folder / "words.txt").write_text("".join(f"{name}\tthing {name}\n" for name in names))
    (folder / "val" / "images").mkdir(parents=True)
    annotations = ""
    for label, name in enumerate(names):
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        for number in range(4):
            noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
            noise.save(images / f"{name}_{number}.JPEG")
        noise.save(folder / "val" / "images" / f"val_{label}.JPEG")
        lines = "".join(f"{name}_{number}.JPEG\t0\t0\t62\t62\n" for number in range(4))
        (folder / "train" / name / f"{name}_boxes.txt").write_text(lines)
        annotations += f"val_{label}.JPEG\t{name}\t0\t0\t62\t62\n"
    (folder / "val" / "val_annotations.txt").write_text(annotations)
    return folder


@pytest.fixture(scope="module")
def imagenet(photos, tmp_path_factory):
    """The photos as ImageNet's folders are, with annotations of the validation images and a list of six classes."""
    folder = tmp_path_factory.mktemp("imagenet")
    for file in photos.glob("*/*/*.png"):
        split, wnid = file.parts[-3:-1]
        to = folder / split / wnid / f"{wnid}_{file.name}"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
        if split == "val":
            annotation = folder / "Annotations" / "CLS-LOC" / "val" / f"{to.stem}.xml"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            box = "<bndbox><xmin>30</xmin><ymin>20</ymin><xmax>59</xmax><ymax>49</ymax></bndbox>"
            annotation.write_text(f"<annotation><object><name>{wnid}</name>{box}</object></annotation>")
    (folder / "classes.txt").write_text("\n".join(TEN_CLASSES[:6]))
    return folder


def marked(name):
    """One recipe for each kind of method and of data; the others take seconds each.

    Photos without labels (photos_*) have nothing to be measured by; training/test_retrofit_runs.py trains on them.
    """
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore:.*of the gradient.*flows past:contrex.errors.LayerWarning")  # ExCon's own layer
@pytest.mark.parametrize("name", [marked(name) for name in RECIPES if not name.startswith("photos_")])
def test_every_recipe_trains_and_is_measured_by_its_own_metrics(name, request, tmp_path):
    recipe = RECIPES[name]()
    num = "8" if not isinstance(recipe.data, FineGrained) else "4" if recipe.labelled.per_class is None else "2"
    words = ["--folder", tmp_path / "run", "--training.epochs", "1", "--training.batch-size", num]
    words += ["--training.workers", "0", "--training.device", "cpu", "--evaluation.device", "cpu"]
    words += ["--evaluation.num-bootstrap", "20", "--training.precision", "float32"]  # half precision is slow on a CPU
    if isinstance(recipe.data, Digits):
        words += ["--data.num-train", "16", "--data.num-val", "8", "--data.num-test", "8"]
        words += ["--data.image-size", "32", "--data.digit-size", "14", "18"]
    elif isinstance(recipe.data, FineGrained):
        words += ["--data.path", archives.BUILDERS[type(recipe.data)](tmp_path / "data")]
    else:
        kinds = {Folder: "photos", ImageNet: "imagenet", Cifar: "cifar", TinyImageNet: "tiny_imagenet"}
        words += ["--data.path", request.getfixturevalue(kinds[type(recipe.data)])]
    if isinstance(recipe.data, ImageNet):
        words += ["--evaluation.content-heatmap-protocol", "native"]  # the published one sees images of 448 pixels
    if isinstance(recipe.data, Folder | ImageNet | FineGrained):
        words += ["--data.image-size", "64", "--data.resize", "64", "--model.weights", "None", "--model.fresh"]
        words += ["--model.layout", "plain"]
    if name.startswith("imagenet100"):
        words += ["--data.classes", request.getfixturevalue("imagenet") / "classes.txt"]
    if recipe.labelled.per_class is not None:
        words += ["--labelled.per-class", "1", *(["--data.num-train", "40"] if isinstance(recipe.data, Digits) else [])]
    if recipe.labelled.share is not None:
        words += ["--labelled.share", "0.5", *(["--data.num-train", "40"] if isinstance(recipe.data, Digits) else [])]
    if recipe.optimizer.head_lr is not None:
        words += ["--optimizer.head-lr", "0.02"]  # theirs is for a trained network, a random one diverges
    if isinstance(recipe.method, ExCon):
        words += ["--method.starting-epoch", "0"]
    if name.startswith("pets"):
        words += ["--data.classes", *TEN_CLASSES[:3]]
    assert run("train", name, *words) == 0
    record = json.loads(next(tmp_path.rglob("record.json")).read_text())
    assert list(dict.fromkeys(metric["family"]["name"] for metric in record["metrics"])) == list(
        recipe.evaluation.metrics
    )
    counted = {metric["name"]: metric["num_counted"] for metric in record["metrics"]}
    assert counted.pop("cgc_loss", 0) == 0  # it is defined on 32 images
    assert all(counted.values())
    assert isinstance(recipe.method, SupCon | GCC) == (tmp_path / "run" / "views" / "epoch-0001.png").is_file()


@pytest.mark.slow
def test_recipes_side_by_side(tmp_path, capsys):
    small = ["--data.num-train", "16", "--data.num-val", "8", "--data.num-test", "8", "--training.batch-size", "8"]
    small += ["--training.epochs", "1", "--evaluation.metrics", "top1", "--evaluation.gallery", "0"]
    words = ["train", "digits_cross_entropy", "digits_supcon", "--seeds", "2", "--folder", tmp_path, *small]
    assert run(*words) == 0
    names = [f"digits_{name}-seed{seed}" for name in ("cross_entropy", "supcon") for seed in (0, 1)]
    assert all((tmp_path / name / "evaluation-test" / "record.json").is_file() for name in names)
    out = capsys.readouterr().out
    assert f"report: {tmp_path}/report.html" in out
    assert "2 seeds" in (tmp_path / "report.html").read_text()
    assert run(*words) == 2
    assert "already holds digits_cross_entropy-seed0: continue with --resume" in capsys.readouterr().err
    assert run(*words, "--resume") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["digits_cgc"], "must have different names"),
        (["--seeds", "0"], "--seeds 0 must be at least 1"),
        (["--seeds", "2", "--no-evaluate"], "leaves several runs without a report"),
    ],
)
def test_recipes_that_cannot_stand_side_by_side_are_refused(more, message, tmp_path, capsys):
    assert run("train", "digits_cgc", *more, "--folder", tmp_path, "--training.epochs", "1") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- one logit, several labels --------------------------------------------------------------------------------------


@pytest.fixture
def sigmoids(tmp_path):
    """Weights of a network with one logit and of one with four labels, and the options that load them."""

    def made(num_logits):
        torch.manual_seed(0)
        network = build_network("contrex:convnet", {}, num_classes=num_logits).eval()
        torch.save(network.state_dict(), tmp_path / f"{num_logits}.pth")
        options = ["--model.name", "contrex:convnet", "--model.weights", tmp_path / f"{num_logits}.pth"]
        return network, [*options, "--model.mean", "0.5", "--model.std", "0.5"]

    return made


def shown(photo):
    return torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)[None] / 255 * 2 - 1


def test_explain_one_logit(photos, sigmoids, tmp_path, capsys):
    network, model = sigmoids(1)
    photo = min((photos / "val").rglob("*.png"))
    p = network(shown(photo)).sigmoid().item()
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    words = [*model, "--side", "72", "--classes", tmp_path / "names.txt", "--output", tmp_path / "one.png"]
    assert run("explain", photo, *words, "--top", "2") == 0
    said = capsys.readouterr().out
    assert said.count("why ") == 2  # the contrast would be the same map
    assert f"{p:7.2%}  dog" in said
    assert f"{1 - p:7.2%}  cat" in said
    assert run("explain", photo, *words, "--task", "binary", "--target", "dog", "--contrast", "cat") == 0
    assert "why dog rather than cat?" in capsys.readouterr().out
    assert run("verify", tmp_path / "one.json") == 0
    assert run("explain", photo, *words, "--task", "multilabel") == 2
    assert "`classes` has 2 names, the classifier 1 classes" in capsys.readouterr().err
    assert run("explain", photo, *words, "--task", "multiclass") == 2
    assert "`task` 'multiclass' needs at least two logits" in capsys.readouterr().err


def test_explain_several_labels(photos, sigmoids, tmp_path, capsys):
    network, model = sigmoids(4)
    photo = min((photos / "val").rglob("*.png"))
    p = network(shown(photo)).sigmoid()[0].tolist()
    order = sorted(range(4), key=lambda label: -p[label])
    words = [*model, "--side", "72", "--task", "multilabel", "--output", tmp_path / "labels.png"]
    for threshold, num in ((sorted(p)[1] + 1e-6, 2), (0.999, 1)):
        assert run("explain", photo, *words, "--threshold", threshold) == 0
        said = capsys.readouterr().out
        assert [line.rpartition("why ")[2] for line in said.splitlines() if "why " in line] == [
            f"{label}?" for label in order[:num]
        ]
        assert all(f"{p[label]:7.2%}  {label}" in said for label in range(4))
        assert run("verify", tmp_path / "labels.json") == 0
        capsys.readouterr()
    for more, message in (
        (
            ["--threshold", "0.5", "--top", "2"],
            "`threshold` 0.5 chooses the labels to explain, and so do `target` and `top`",
        ),
        (["--threshold", "0.5", "--target", "2"], "`threshold` 0.5 chooses the labels"),
        (["--threshold", "1.5"], "`threshold` must be a probability in 0..1, below 1, got 1.5"),
        (["--task", "binary"], "`task` 'binary' needs one logit, the model has 4"),
    ):
        assert run("explain", photo, *words, *more) == 2
        assert message in capsys.readouterr().err
    assert run("explain", photo, *model, "--threshold", "0.5") == 2
    assert "`threshold` says which labels are present, the task is 'multiclass'" in capsys.readouterr().err


def test_evaluate_one_logit_and_labels(photos, sigmoids, tmp_path, capsys):
    data = ["--data.path", photos, "--data.image-size", "64", "--data.resize", "64", "--num-bootstrap", "10"]
    two = ["--data.classes", *TEN_CLASSES[:2], "--metrics", "top1", "calibration", "insertion_auc", "content_heatmap"]
    assert run("evaluate", *sigmoids(1)[1], *data, *two, "--output", tmp_path / "one") == 0
    four = ["--data.classes", *TEN_CLASSES[:4], "--task", "multilabel", "--metrics"]
    assert run("evaluate", *sigmoids(4)[1], *data, *four, "drop_increase", "--output", tmp_path / "labels") == 0
    for name, task in (("one", "binary"), ("labels", "multilabel")):
        record = json.loads((tmp_path / name / "record.json").read_text())
        assert {metric["protocol"]["task"] for metric in record["metrics"]} == {task}
    capsys.readouterr()
    assert run("evaluate", *sigmoids(4)[1], *data, *four, "top1", "--output", tmp_path / "no") == 2
    assert "has top1, which cannot judge a multilabel classifier: an image has one label" in capsys.readouterr().err
