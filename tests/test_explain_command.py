"""`contrex explain` of several photos, its records, and `contrex verify`."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import contrex
from contrex.cli import main
from contrex.cli.counting import Progress
from contrex.models import load_classifier
from contrex.settings import Model


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two photos and weights, explained by two methods with two contrasts: a folder that can be moved."""
    root = tmp_path_factory.mktemp("made")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "photos" / name)
    torch.manual_seed(0)
    network = load_classifier(Model("contrex:convnet"), num_classes=3).network
    torch.save(network.state_dict(), root / "w.pth")
    words = ["--model.name", "contrex:convnet", "--model.weights", root / "w.pth", "--side", "32", "--save-maps"]
    words += ["--explainer", "grad_cam", "gradient", "--top", "2", "--contrast", "none", "weighted"]
    assert run("explain", root / "photos", *words, "--output", root / "why.png") == 0
    return root


@pytest.fixture
def moved(made, tmp_path):
    return shutil.copytree(made, tmp_path / "moved")


def test_each_photo_has_its_picture_its_record_and_its_maps(made):
    assert sorted(path.name for path in made.iterdir()) == [
        "photos", "w.pth", "why-a.json", "why-a.npz", "why-a.png", "why-b.json", "why-b.npz", "why-b.png",
    ]  # fmt: skip
    record = json.loads((made / "why-a.json").read_text())
    assert record["photo"]["file"] == "photos/a.png"
    assert (record["photo"]["width"], record["photo"]["seen_as"]["width"]) == (60, 48)
    assert record["classifier"]["weights"]["file"] == "w.pth"
    assert record["versions"]["contrex"] == contrex.__version__
    assert sum(one["probability"] for one in record["classes"]) == pytest.approx(1)
    grad_cam, gradient = record["explanations"]
    assert (grad_cam["layer"], gradient["layer"]) == ("features", None)
    assert [one["contrast"] for one in grad_cam["questions"]] == [None, "weighted"] * 2
    with np.load(made / "why-a.npz") as maps:
        assert maps["map_1_3"].shape == (32, 48)
        assert str(maps["questions"][3]).startswith("map_0_3: grad_cam: why ")
        probabilities = torch.from_numpy(maps["logits"]).softmax(1)[0]
    first = grad_cam["questions"][0]["target"]
    assert first["probability"] == float(probabilities[first["index"]])
    assert grad_cam["questions"][0]["value"] == pytest.approx(float(maps_logit(made, first["index"])))


def maps_logit(made, index):
    with np.load(made / "why-a.npz") as maps:
        return maps["logits"][0, index]


def test_a_record_holds_where_it_has_moved_to(moved, capsys):
    assert run("verify", moved / "why-a.json", moved / "why-b.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "holds: probabilities, scores and 8 maps are the same to the last bit"
    ] * 2


def changed(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return path


def test_other_numbers_do_not_hold(moved, capsys):
    def probability(record):
        record["classes"][1]["probability"] += 0.25

    def cells(record):
        record["maps"] = None
        one = record["explanations"][1]["questions"][2]["map"]
        one["cells"][3][4] += 0.5 * one["largest"]

    def place(record):
        record["explanations"][0]["layer"] = "features.9"

    for change, told in (
        (probability, "of the photo is 0."),
        (cells, "gradient: why "),
        (place, "grad_cam: the explained layer is features now, in the record features.9"),
    ):
        copy = shutil.copy(moved / "why-a.json", moved / "other.json")
        assert run("verify", changed(moved / "other.json", change)) == 1
        out = capsys.readouterr().out
        assert f"{copy}: does not hold (tolerance 0.001):" in out
        assert told in out
    changed(moved / "why-a.json", cells)
    assert run("verify", moved / "why-a.json", "--tolerance", "0.6") == 0
    assert "8 maps within 5.0e-01 of the largest value (tolerance 0.6)" in capsys.readouterr().out


def test_records_tell_which_versions_were_others(moved, capsys):
    path = changed(moved / "why-a.json", lambda record: record["versions"].update(torch="1.0"))
    assert run("verify", path) == 0
    assert f"made with torch 1.0, now {torch.__version__}" in capsys.readouterr().out


def test_a_class_that_is_asked_about_again_holds(moved, capsys):
    words = ["--model.name", "contrex:convnet", "--model.weights", moved / "w.pth", "--side", "32"]
    again = ["--target", "2", "0", "2", "--contrast", "none", "weighted", "--output", moved / "again.png"]
    assert run("explain", moved / "photos" / "a.png", *words, *again) == 0
    assert run("verify", moved / "again.json") == 0
    assert "6 maps are the same to the last bit" in capsys.readouterr().out
    assert run("verify", moved / "again.json", "--run", moved) == 2
    assert "names no run. Leave it out" in capsys.readouterr().err


def test_each_photo_has_files_of_its_own_whatever_the_names(moved, capsys):
    """cat.png is the second photo of its name, and cat-2.png has that name already."""
    names = ["cat.jpg", "cat.png", "cat-2.jpg", "cat-2.png"]
    (moved / "cats").mkdir()
    for name in names:
        Image.open(moved / "photos" / "a.png").save(moved / "cats" / name)
    words = ["--model.name", "contrex:convnet", "--model.weights", moved / "w.pth", "--side", "32"]
    assert run("explain", *(moved / "cats" / name for name in names), *words, "--output", moved / "its.png") == 0
    records = {path.stem: json.loads(path.read_text())["photo"]["file"] for path in moved.glob("its-*.json")}
    assert records == {
        "its-cat": "cats/cat.jpg",
        "its-cat-3": "cats/cat.png",
        "its-cat-2": "cats/cat-2.jpg",
        "its-cat-2-2": "cats/cat-2.png",
    }
    assert all((moved / f"{stem}.png").is_file() for stem in records)


def test_what_has_changed_or_is_gone_is_told(moved, capsys):
    def fails(message, *words):
        assert run("verify", moved / "why-a.json", *words) == 1
        assert message in capsys.readouterr().err

    shutil.copy(moved / "photos" / "b.png", moved / "photos" / "a.png")
    fails("photos/a.png has changed: its SHA-256 is ")
    (moved / "photos" / "a.png").unlink()
    fails("photos/a.png is gone. Pass --photo FILE if it is elsewhere.")
    fails("b.png has changed", "--photo", moved / "photos" / "b.png")
    assert run("verify", moved / "why-b.json", "--photo", moved / "photos" / "b.png") == 0
    (moved / "w.pth").rename(moved / "elsewhere.pth")
    assert run("verify", moved / "why-b.json", "--weights", moved / "elsewhere.pth") == 0
    assert run("verify", moved / "why-b.json") == 1
    assert "w.pth is gone. Pass --weights FILE if it is elsewhere." in capsys.readouterr().err
    state = torch.load(moved / "elsewhere.pth")
    torch.save({name: value + 1 for name, value in state.items()}, moved / "w.pth")
    assert run("verify", moved / "why-b.json") == 1
    assert "w.pth has changed: its SHA-256 is " in capsys.readouterr().err
    other = shutil.copy(moved / "why-b.json", moved / "other.json")
    changed(moved / "other.json", lambda record: record["classifier"]["weights"].update(sha256="0" * 64))
    assert run("verify", other, "--weights", moved / "elsewhere.pth") == 1
    assert "the weights of the network have changed: their SHA-256 is " in capsys.readouterr().err
    torch.save(state, moved / "w.pth")
    np.savez(moved / "why-b.npz", nothing=np.zeros(1))
    assert run("verify", moved / "why-b.json", "--weights", moved / "elsewhere.pth") == 1
    assert "the file of maps " in capsys.readouterr().err


def test_only_records_are_verified(moved, capsys):
    explain = contrex.Gradient(load_classifier(Model("contrex:convnet"), num_classes=3).network)
    explain(torch.rand(1, 3, 32, 32)).save(moved / "python.json")
    (moved / "list.json").write_text("[]")
    for path, message in (
        (moved / "no.json", "no.json is no record of an explanation: No such file"),
        (moved / "w.pth", "w.pth is no record of an explanation"),
        (moved / "list.json", "list.json is no record of an explanation: contrex explain writes one"),
        (moved / "python.json", "python.json is an explanation saved in Python, which does not know"),
        (changed(moved / "why-a.json", lambda record: record.update(version=9)), "has version 9, this contrex reads 1"),
        (changed(moved / "why-b.json", lambda record: record.pop("task")), "is damaged: it lacks 'task'"),
    ):
        assert run("verify", path) == 2
        assert message in capsys.readouterr().err
    assert run("verify") == 2
    assert "name one record or more" in capsys.readouterr().err
    assert run("verify", "a.json", "b.json", "--photo", "a.png") == 2
    assert "--photo a.png is one photo: give one record" in capsys.readouterr().err
    assert run("verify", "a.json", "--tolerance", "-1") == 2
    assert "`tolerance` must be from 0 to below 1, got -1" in capsys.readouterr().err


def test_of_many_photos_one_may_be_broken(moved, capsys):
    (moved / "photos" / "broken.jpg").write_bytes(b"no photo")
    (moved / "photos" / "deep").mkdir()
    shutil.copy(moved / "photos" / "b.png", moved / "photos" / "deep" / "a.png")
    words = ["--model.name", "contrex:convnet", "--model.weights", moved / "w.pth", "--side", "32", "--target", "1"]
    assert run("explain", moved / "photos", *words, "--output", moved / "new" / "book.pdf") == 2
    out, err = capsys.readouterr()
    assert "contrex: cannot read image" in err
    assert " of 4 photos" not in err  # a count is for ten and more, or for a terminal
    assert out.count("grad_cam explains features, 4 x 6") == 1
    assert sorted(path.name for path in (moved / "new").iterdir()) == [
        "book-a-2.json", "book-a.json", "book-b.json", "book.pdf",
    ]  # fmt: skip
    assert (moved / "new" / "book.pdf").read_bytes().count(b"/Type /Page ") == 3


def test_an_output_that_cannot_be_written_is_refused_before_the_work(made, capsys):
    photo, (other,) = made / "photos" / "a.png", [made / "photos" / "b.png"]
    for output, message in (
        (made / "w.pth" / "x.png", "cannot be written: "),
        (made / "x.gif", "has no picture format: end it in one of .png, .jpg"),
        (photo, "a.png is one of the photos: name another file"),
    ):
        assert run("explain", photo, "--output", output, "--model.weights", other) == 2
        assert message in capsys.readouterr().err
    (made / "folder.png").mkdir()
    words = ["--model.name", "contrex:convnet", "--model.weights", made / "w.pth", "--output", made / "none.png"]
    assert run("explain", made / "gone.png", *words) == 2
    assert "gone.png': No such file or directory. Replace or remove it." in capsys.readouterr().err
    assert run("explain", photo, "--output", made / "folder.png") == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err
    (made / "folder.png").rmdir()


def test_the_count_says_how_long_the_others_take(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("contrex.cli.counting.time.monotonic", lambda: now[0])
    progress = Progress(50)
    for _ in range(10):
        now[0] += 6
        progress.step()
    assert capsys.readouterr().err.splitlines() == ["5 of 50 photos, 4 min left", "10 of 50 photos, 4 min left"]
    Progress(1).step()
    assert capsys.readouterr().err == ""


# --- another class was expected -------------------------------------------------------------------------------------


@pytest.fixture
def asked(made, tmp_path):
    """Explain the first photo with more words; gives what it said and its record."""
    words = ["--model.name", "contrex:convnet", "--model.weights", made / "w.pth", "--side", "32"]

    def ask(*more, returns=0):
        assert run("explain", made / "photos" / "a.png", *words, *more, "--output", tmp_path / "e.png") == returns
        return tmp_path / "e.json" if returns == 0 else None

    return ask


def test_a_wrong_prediction_is_asked_in_both_directions(asked, capsys):
    predicted, *others = [one["index"] for one in json.loads(asked().read_text())["classes"]]
    expected = others[-1]
    capsys.readouterr()
    path = asked("--expected", str(expected), "--explainer", "grad_cam", "layer_cam", "--save-maps")
    assert f"predicted {predicted}, not {expected}\n" in capsys.readouterr().out
    record = json.loads(path.read_text())
    wanted = next(one for one in record["classes"] if one["index"] == expected)
    assert record["expected"] == {**wanted, "is_predicted": False}
    for row in record["explanations"]:
        assert [
            (one["target"]["index"], [foil["index"] for foil in one["foils"]]) for one in row["questions"]
        ] == [(predicted, []), (predicted, [expected]), (expected, [predicted])]  # fmt: skip
        there, back = (one["value"] for one in row["questions"][1:])
        assert there == -back > 0
    with np.load(path.with_suffix(".npz")) as maps:
        np.testing.assert_allclose(maps["map_0_1"], -maps["map_0_2"], atol=1e-6)  # Grad-CAM is linear in the score
        assert np.abs(maps["map_0_1"]).max() > 0
    assert run("verify", path) == 0
    assert "6 maps are the same to the last bit" in capsys.readouterr().out


def test_a_prediction_that_was_expected_is_told_so_and_explained_alone(asked, capsys):
    predicted = json.loads(asked().read_text())["classes"][0]["index"]
    capsys.readouterr()
    path = asked("--expected", str(predicted))
    assert f"the prediction is {predicted}, as expected" in capsys.readouterr().out
    record = json.loads(path.read_text())
    assert record["expected"]["is_predicted"] is True
    assert [one["contrast"] for one in record["explanations"][0]["questions"]] == [None]
    assert run("verify", path) == 0


@pytest.mark.parametrize("more", [["--target", "1"], ["--top", "2"], ["--contrast", "mean"]])
def test_what_is_expected_leaves_nothing_else_to_choose(asked, capsys, more):
    asked("--expected", "1", *more, returns=2)
    assert "`expected` 1 chooses the classes and the contrasts, and so do" in capsys.readouterr().err


def test_an_expected_class_that_does_not_exist_is_refused(asked, capsys):
    asked("--expected", "lynx", returns=2)
    assert "`expected` must be one of 0, 1, 2; got 'lynx'" in capsys.readouterr().err


def test_contrasts_with_options_are_recorded_in_one_spelling_and_verified(asked, capsys):
    path = asked("--top", "2", "--contrast", "nearest( alpha=0.6, k=2)", "nearest", "mean(strength=0.5)")
    record = json.loads(path.read_text())
    questions = record["explanations"][0]["questions"]
    spelt = ["nearest(k=2, alpha=0.6)", "nearest", "mean(strength=0.5)"]
    assert [one["contrast"] for one in questions] == spelt * 2
    assert [len(one["foils"]) for one in questions] == [2, 2, 0] * 2
    assert run("verify", path) == 0
    capsys.readouterr()
    asked("--contrast", "nearst(k=2)", returns=2)
    assert "`contrast` must be one of mean, max, weighted, nearest; got 'nearst'" in capsys.readouterr().err
    asked("--contrast", "max(strength=-1)", returns=2)
    assert "strength must be a number from 0 on, got -1" in capsys.readouterr().err
