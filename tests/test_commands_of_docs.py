"""Every command on a page is one that contrex takes, and those of the README do what it says after `make quickstart`.

Words in capitals on a page stand for what a reader has (PATH, RUN, FILE ...); here they are small things of the tests.
Each command of a page is read by the command itself, up to the point where it would begin to work. The slow test runs
the README's for real, with small data and few steps.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from contrex.cli import COMMANDS, main
from contrex.models import build_network
from contrex.recipes import recipe_named
from sampling import crossed

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)
QUICK = "runs/quickstart"


def commands(page):
    """The commands in the indented lines of a page, without comments; a backslash joins lines."""
    text = re.sub(r"\\\n\s+", "", page.read_text(encoding="utf-8"))
    found = re.findall(r"^    (?:[\w-]+=\S+ )*(contrex .*)$", text, re.MULTILINE)
    return [re.sub(r"\s+#\s.*", "", line) for line in found]


def arguments(command):
    """The words behind `contrex`: of usage lines what stands in [brackets], and the first of alternatives|others."""
    plain = re.sub(r"(?<=\w)\|[\w|]+", "", command)
    if "(" not in plain:
        plain = re.sub(r"[\[\]]", "", plain)
    words = [word for word in shlex.split(plain)[1:] if word != "..."]
    return [one for word in words for one in braces(word)]


def braces(word):
    """What a shell makes of a_{b,c}."""
    match = re.search(r"\{([^}]+)\}", word)
    if match is None or word.startswith("{"):
        return [word]
    return [word.replace(match[0], part) for part in match[1].split(",")]


class ReadError(Exception):
    """The options of a command were read; it goes no further."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos with two classes, as PATH."""
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 32), "orange").save(root / split / name / "0.png")
    return root


def stand_in(name):
    """The recipe that a word names; of a saved run, and of the A and B of a page, any one."""
    is_placeholder = name in ("A", "B") or name.endswith("recipe.json")
    return recipe_named("digits_cgc" if is_placeholder else name)


@pytest.fixture
def reading(monkeypatch):
    """Let each command stop when it has read its options."""
    for module in {sys.modules[command.__module__] for command in COMMANDS.values()}:
        own = getattr(module, "parsed", None)

        def parsed(*words, own=own, **options):
            raise ReadError(own(*words, **options))

        monkeypatch.setattr(module, "parsed", parsed, raising=False)
    monkeypatch.setattr("contrex.training.trained.saved_recipe", lambda folder: recipe_named("digits_cgc"))
    monkeypatch.setattr("contrex.recipes.recipe_from", stand_in)
    monkeypatch.chdir(ROOT)


def is_taken(command, photos):
    words = [re.sub(r"\bPATH\b", str(photos), word) for word in arguments(command)]
    try:
        return main(words) == 0
    except ReadError:
        return True


README_COMMANDS = [*commands(README), *commands(ROOT / "llms.txt")]
DOCS_COMMANDS = [(page.relative_to(ROOT), command) for page in DOCS for command in commands(page)]


def test_pages_have_commands():
    assert len(README_COMMANDS) >= 15
    assert len(DOCS_COMMANDS) >= 40


@pytest.mark.parametrize("command", crossed(README_COMMANDS, one_in=2))
def test_a_command_of_the_readme_is_taken(command, reading, photos):
    assert is_taken(command, photos)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), DOCS_COMMANDS, ids=str)
def test_a_command_of_a_page_is_taken(page, command, reading, photos):
    assert is_taken(command, photos) or command == "contrex reproduce"  # which lists the tables and asks for one


def test_a_command_that_is_none_is_refused(reading, photos, capsys):
    with pytest.raises(SystemExit):
        is_taken("contrex evaluate RUN --metrixs top1", photos)
    assert "--metrixs" in capsys.readouterr().err


# --- the README's commands, for real --------------------------------------------------------------------------------

DIGITS = [
    *("--data.num-train", "16", "--data.num-val", "8", "--data.num-test", "34", "--data.image-size", "32"),
    *("--data.digit-size", "14", "18", "--training.batch-size", "8", "--training.epochs", "1"),
]
FEW = {
    "train digits_few_shot": ["--seeds", "2", "--jobs", "1", "--training.epochs", "1", "--data.num-test", "34"],
    "train digits_supcon": [*DIGITS[:-1], "5"],  # ExCon's own loss begins in the fifth
    "train digits_": DIGITS,
    "train runs/": ["--training.epochs", "1"],
    "reproduce cgc-table5 --scale tiny": ["--rows", "*resnet18*", "--epochs", "1", "--limit", "20"],
}
"""What makes the commands that begin like this small."""

NEEDS = {
    "tiny_imagenet10_cgc": "Tiny-ImageNet in folders",
    "imagenet:PATH": "ImageNet",
    "--model.weights FILE": "weights, and photos",
    "mobilenetv2_100_timm_same.pth": "500 photos of ImageNet and timm's weights, as in test_real_network.py",
}
"""What a reader must have for the commands with these words; they are read above, and not run."""


@pytest.mark.slow
def test_the_readme_can_be_followed(tmp_path):
    """After a quickstart of one epoch, from the same folder, in a shell: the paths exist and the commands work."""
    for name in ("cat.jpg", "dog.jpg", "photos/cow.jpg", "more/hen.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (120, 100), "orange").save(tmp_path / name)
    torch.save(build_network("torchvision:resnet50", {}).state_dict(), tmp_path / "resnet50.pth")
    block = next(one for one in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "MyCAM" in one)
    (tmp_path / "mine.py").write_text("import contrex\n\n\n" + block.partition("\n\n\nfrom ")[0] + "\n")
    shell(tmp_path, "contrex quickstart --epochs 1")
    for command in README_COMMANDS:
        needs_network = "--pretrained" in command and "--model.weights" not in command
        if not needs_network and not any(word in command for word in NEEDS):
            few = next((words for begin, words in FEW.items() if command.startswith(f"contrex {begin}")), [])
            shell(tmp_path, f"{command.replace('--run RUN', f'--run {QUICK}/digits_cgc-seed0')} {shlex.join(few)}")
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "explanation.png").is_file()


def shell(folder, command):
    """Run a command as it stands on the page; `contrex` is the one that is tested."""
    text = f'contrex() {{ "{sys.executable}" -W ignore -m contrex "$@"; }}\n{command}'
    environment = {**os.environ, "CONTREX_NO_CACHE": "1"}
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
