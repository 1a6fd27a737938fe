"""The lists of explainers, metrics and recipes: at once, without torch, and true."""

import io
import subprocess
import sys

import pytest

import contrex
from contrex.cli import COMMANDS, listing, main
from contrex.cli.completion import SCRIPTS, completions
from contrex.errors import ArgumentError
from contrex.evaluation import PROTOCOLS
from contrex.explain.options import default_options
from contrex.recipes import RECIPES


def by_name(entries):
    return {entry.name: entry for entry in entries}


def test_explainers_are_those_that_there_are():
    listed = by_name(listing.explainers())
    assert list(listed) == list(contrex.EXPLAINERS)
    for name, kind in contrex.EXPLAINERS.items():
        title = (sys.modules[kind.__module__].__doc__ or "").splitlines()[0].rstrip(".")
        options = ", ".join(f"{option}={value!r}" for option, value in default_options(kind).items())
        assert listed[name].about == (f"{title}: {options}" if options else title)
        assert listed[name].family in sys.modules[kind.__module__.rpartition(".")[0]].__doc__


def test_metrics_are_those_that_there_are():
    listed = by_name(listing.metrics())
    assert list(listed) == list(PROTOCOLS)
    for name, kind in PROTOCOLS.items():
        assert listed[name].about == kind.__doc__.partition("\n")[0]
        assert listed[name].family == kind.__module__.rpartition(".")[2].replace("_", " ")


def test_recipes_are_in_groups():
    listed = by_name(listing.recipes())
    assert list(listed) == list(RECIPES)
    families = {name: RECIPES[name].__module__ for name in RECIPES}
    assert len({entry.family for entry in listed.values()}) == len(set(families.values()))


def test_what_packages_add_is_listed(monkeypatch):
    monkeypatch.setattr(listing, "installed", lambda group: {f"my_{group}": f"my.{group}:Thing"})
    lists = {
        listing.explainers: ["explainers"],
        listing.metrics: ["protocols", "metrics"],
        listing.recipes: ["recipes"],
    }
    for entries, groups in lists.items():
        added = [entry for entry in entries() if entry.family == listing.OUTSIDE]
        assert [(one.name, one.about) for one in added] == [(f"my_{group}", f"my.{group}:Thing") for group in groups]


def test_lists_do_without_torch():
    code = (
        "import sys; from contrex.cli import main\n"
        "for words in (['--help'], ['recipes'], ['explainers'], ['metrics'],\n"
        "              ['completion', 'bash'], ['completion', 'words', 'train', 'digits_']):\n"
        "    assert main(words) == 0\n"
        "assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["recipes", "cub", "5-shot"], ["cub_5_shot_cross_entropy", "cub_5_shot_cgc"]),
        (["metrics", "consistency"], ["cgc_loss", "equivariance", "spread"]),
        (["explainers", "GRAD-CAM++"], ["grad_cam_plus_plus"]),
    ],
)
def test_words_choose(words, names, capsys):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == names
    assert not any(line.startswith("or FILE.py") for line in lines)


def test_words_that_choose_nothing_are_refused(capsys):
    assert main(["recipes", "cgc", "elephants"]) == 2
    message = "nothing among the recipes has 'cgc' and 'elephants' in it: contrex recipes lists all of them."
    assert capsys.readouterr().err == f"contrex: {message}\n"
    with pytest.raises(ArgumentError, match="nothing among the metrics has 'elephants' in it"):
        listing.chosen(listing.metrics(), ["elephants"], "metrics")


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_help_has_no_colours_where_none_are_wanted(no_color, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout", Terminal())
    with pytest.raises(SystemExit) as stop:
        main(["metrics", "--help"])
    text = sys.stdout.getvalue()
    assert stop.value.code == 0
    assert "List the metrics" in text
    assert ("\x1b[" in text) is coloured


# --- what TAB offers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["exp"], {"explain", "explore", "export", "explainers"}),
        ([""], set(COMMANDS)),
        (["train", "digits_few"], {"digits_few_shot_cross_entropy", "digits_few_shot_cgc"}),
        pytest.param(["train", "digits_cgc", "--training.ep"], {"--training.epochs"}, marks=pytest.mark.slow),
        (["explain", "cat.jpg", "--explainer", "grad_cam", "hi"], {"hires_cam"}),
        (["evaluate", "--metrics", "top"], {"top1", "top5"}),
        (["export", "runs/a", "--format", "t"], {"torchvision", "timm"}),
        (["reproduce", "excon-table1"], {"excon-table1a", "excon-table1b"}),
        (["report", "runs/"], set()),
        (["nothing", "--o"], set()),
        (["completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_completions(words, found):
    assert set(completions(words)) == found


def test_the_script_completes_in_bash():
    script = (
        f'contrex() {{ "{sys.executable}" -m contrex "$@"; }}\n'
        f'{SCRIPTS["bash"]}COMP_WORDS=(contrex doc); COMP_CWORD=1; _contrex; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "doctor\n"


def test_the_shell_must_be_named(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "name the shell, got 'tcsh': contrex completion bash|zsh|fish" in capsys.readouterr().err
    assert main(["completion", "--help"]) == 0
    assert 'eval "$(contrex completion bash)"' in capsys.readouterr().out
