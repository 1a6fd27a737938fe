"""Where the numbers of a run also go: TensorBoard, Weights & Biases, MLflow, or a class of your own.

`training.loggers` names them, one or several. What counts is the run's own log, `metrics.jsonl`; a logger is given the
same lines, by the first process, and one that fails is left out from then on, with a word, while the run goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from contrex.errors import ArgumentError, ContrexError
from contrex.outside import find
from contrex.records import to_plain
from contrex.records.scopes import flat
from contrex.settings import Recipe
from contrex.training.log import say


class LoggerMissingError(ContrexError, ImportError):
    """The package of a logger is not installed."""


class Logger(ABC):
    """Takes the numbers of a run as it goes. Made once for each start of it, before its first step.

    A subclass in a file of your own is named `--training.loggers FILE.py:CLASS`, one of an installed package by an
    entry point in the group `contrex.loggers`.
    """

    needs: ClassVar[tuple[str, str]] = ("", "")
    """A module that must be there, and the extra of contrex that installs it."""

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        """Begin: `folder` is the run's, and `step` optimiser steps of it are done; what is known of later ones will be
        written again, with the same numbers on a CPU."""
        self.folder, self.recipe, self.step = folder, recipe, step

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by name: a step's loss terms and rates, or an epoch's validation. `step` steps are done."""

    def close(self) -> None:  # noqa: B027 - some have nothing to end
        """End, also after an error: the run has stopped, for good or for now."""

    def module(self, name: str) -> Any:
        """Import a module of the package that the logger needs, when it is made and not before."""
        return importlib.import_module(name)

    def kept_id(self, name: str) -> str:
        """An identifier in a file of the run's folder, so that a resumed run goes on where it was."""
        path = self.folder / f"{name}-id.txt"
        if not path.is_file():
            path.write_text(uuid.uuid4().hex, encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()


class TensorBoardLogger(Logger):
    """Event files in `FOLDER/tensorboard`: `tensorboard --logdir runs` shows all runs below a folder."""

    needs = ("tensorboard", "tensorboard")

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        super().__init__(folder, recipe, step)
        writer = self.module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(folder / "tensorboard"), purge_step=step + 1)  # readers drop what comes again

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add each number to the chart of its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


class WandbLogger(Logger):
    """A run of Weights & Biases; project, entity and mode are its environment variables (`WANDB_PROJECT` ...)."""

    needs = ("wandb", "wandb")

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        super().__init__(folder, recipe, step)
        self._run = self.module("wandb").init(
            id=self.kept_id("wandb"), resume="allow", name=folder.name, dir=str(folder), config=to_plain(recipe)
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log a row; rows of steps that wandb has already are dropped there, and are the same."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run, so that its process ends."""
        self._run.finish()


class MLflowLogger(Logger):
    """A run of MLflow; its environment variables say where (`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`)."""

    needs = ("mlflow", "mlflow")

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        super().__init__(folder, recipe, step)
        self._mlflow = self.module("mlflow")
        path = folder / "mlflow-id.txt"  # MLflow chooses its identifiers itself
        known = path.read_text(encoding="utf-8").strip() if path.is_file() else None
        run = self._mlflow.start_run(run_id=known) if known else self._mlflow.start_run(run_name=folder.name)
        if known is None:
            path.write_text(run.info.run_id, encoding="utf-8")
            self._mlflow.log_params({name: str(value)[:500] for name, value in flat(to_plain(recipe))})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run, so that the next one in this process is another."""
        self._mlflow.end_run()


LOGGERS: Mapping[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}
"""What `training.loggers` may name; installed packages add to it in the group `contrex.loggers`."""


def logger_class(name: str) -> type[Logger]:
    """The class that a name means.

    Raises:
        UnknownNameError: nothing has that name.
        ArgumentError: it is no `Logger`.
        LoggerMissingError: its package is not installed.
    """
    kind = find(name, "`training.loggers`", LOGGERS, "loggers")
    if not isinstance(kind, type) or not issubclass(kind, Logger):
        raise ArgumentError(f"`training.loggers` must name subclasses of contrex.training.Logger, got {name!r}.")
    module, extra = kind.needs
    if module and importlib.util.find_spec(module) is None:
        raise LoggerMissingError(f"`training.loggers` {name} needs {module}: pip install 'contrex[{extra}]'.")
    return kind


class Loggers:
    """The loggers of a run, which may be none."""

    def __init__(self) -> None:
        self._loggers: dict[str, Logger] = {}
        self._console: Console | None = None

    def begin(self, names: Sequence[str], folder: Path, recipe: Recipe, step: int, console: Console) -> None:
        """Make them; what does not begin is an error, as nothing is lost yet."""
        self._console = console
        for name in names:
            self._loggers[name] = logger_class(name)(folder, recipe, step)

    def write(self, line: Mapping[str, Any]) -> None:
        """Hand on a line of the run's log."""
        values = {name: float(value) for name, value in line.items() if name != "step"}
        for name in list(self._loggers):
            self._tried(name, lambda logger: logger.write(line["step"], values))

    def close(self) -> None:
        """Close them all."""
        for name in list(self._loggers):
            self._tried(name, lambda logger: logger.close())
        self._loggers.clear()

    def _tried(self, name: str, act: Any) -> None:
        try:
            act(self._loggers[name])
        except Exception as error:  # a service that is away is no reason to lose hours of training
            del self._loggers[name]
            if self._console is not None:
                say(self._console, f"logger {name} fails and is left out: {type(error).__name__}: {error}")
