"""The records of a run, read from its folder: everything that its page and its model card state."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from worldmodels_fast import envs
from worldmodels_fast.evaluation.fidelity.file import read_fidelity
from worldmodels_fast.evaluation.fidelity.row import FidelityRow
from worldmodels_fast.evaluation.scores import Evaluation, load_evaluations
from worldmodels_fast.migration import migrate_config
from worldmodels_fast.report.temperatures import read_temperatures
from worldmodels_fast.utils.files import read_json, read_json_lines, read_text

__all__ = ["RunRecords", "environment_line"]


class RunRecords:
    """The records of a run; each file is read once, when it is first asked for.

    A run's folder holds what its stages have finished so far, and that of a demo has no
    config.json. A file that is missing reads as empty, or as None where empty means something else.
    Files of earlier versions read as today's.

    Args:
        folder: the run's.

    Raises:
        ValueError: by each attribute, if its file is damaged; the message names the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json in today's sections and names; empty if there is none."""
        return migrate_config(read_json(self.folder / "config.json") or {})

    @cached_property
    def config_text(self) -> str | None:
        """The text of config.json as it was saved."""
        path = self.folder / "config.json"
        return read_text(path) if path.is_file() else None

    @cached_property
    def world(self) -> dict[str, Any] | None:
        """world/config.json; None if the run has no finished world."""
        return read_json(self.folder / "world" / "config.json")

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """stages/NAME.json of the finished stages, by name."""
        paths = sorted((self.folder / "stages").glob("*.json"))
        return {
            path.stem: read_json(path) or {}
            for path in paths
            if not path.name.endswith(".begun.json")
        }

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """history.jsonl: a row for each generation of the evolution."""
        return read_json_lines(self.folder / "history.jsonl")

    @cached_property
    def vae_log(self) -> list[dict[str, Any]]:
        """vae.log.jsonl: rows of V's training."""
        return read_json_lines(self.folder / "vae.log.jsonl")

    @cached_property
    def mdn_rnn_log(self) -> list[dict[str, Any]]:
        """mdn_rnn.log.jsonl: rows of M's training."""
        return read_json_lines(self.folder / "mdn_rnn.log.jsonl")

    @cached_property
    def fidelity(self) -> list[FidelityRow]:
        """fidelity.json: a row for each player."""
        return read_fidelity(self.folder / "fidelity.json")

    @cached_property
    def quality(self) -> dict[str, Any] | None:
        """quality.json."""
        return read_json(self.folder / "quality.json")

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """evaluation.json: the scores in the real game, by player; empty if there is none."""
        path = self.folder / "evaluation.json"
        return load_evaluations(path) if path.is_file() else {}

    @cached_property
    def temperatures(self) -> dict[str, Any] | None:
        """temperatures.json."""
        path = self.folder / "temperatures.json"
        return read_temperatures(self.folder) if path.is_file() else None

    @cached_property
    def sweep(self) -> list[RunRecords]:
        """The runs of the temperature table's rows, the lowest temperature first."""
        rows = (self.folder / "sweep").glob("tau-*")
        return [
            RunRecords(path)
            for path in sorted(rows, key=lambda path: float(path.name.removeprefix("tau-")))
        ]

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of the settings; empty if config.json lacks it."""
        section: dict[str, Any] = self.config.get(name, {})
        return section

    def figures(self, stage: str) -> dict[str, Any]:
        """Return the figures that a finished stage has recorded; empty if it is not finished."""
        figures: dict[str, Any] = self.stages.get(stage, {}).get("figures", {})
        return figures

    @property
    def environment(self) -> str:
        """Name of the run's environment, or of its world's; "" if neither is known."""
        return str(self.config.get("environment") or (self.world or {}).get("environment") or "")

    @property
    def spec(self) -> envs.EnvironmentSpec | None:
        """The specification of the environment; None if it is not known."""
        return envs.ENVIRONMENTS.get(self.environment)

    @property
    def score(self) -> str:
        """Name of a score in the game, for instance "steps survived"."""
        return self.spec.score if self.spec else "steps survived"

    @property
    def paper_scores(self) -> dict[str, tuple[float, float]]:
        """The paper's mean and standard deviation over 100 episodes, by player."""
        return dict(self.spec.paper_scores) if self.spec else {}

    @property
    def evolved_in(self) -> Literal["dream", "game"]:
        """Where C was evolved."""
        return "game" if self.config.get("evolve_in") == "game" else "dream"

    @property
    def predicts_done(self) -> bool:
        """Whether M predicts the end of an episode."""
        return bool(self._of_mdn_rnn("predicts_done", True))

    @property
    def predicts_reward(self) -> bool:
        """Whether M predicts rewards, whose sum a dream then returns."""
        return bool(self._of_mdn_rnn("predicts_reward", False))

    def _of_mdn_rnn(self, name: str, default: bool) -> Any:
        section = self.section("rnn") or (self.world or {}).get("mdn_rnn", {})
        return section.get(name, default)

    @property
    def max_steps(self) -> tuple[int, int]:
        """Steps after which an episode is truncated, in the game and in the dream."""
        spec = self.spec or envs.ENVIRONMENTS[envs.DEFAULT_ENVIRONMENT]
        game = self.config.get("env_kwargs", {}).get("max_steps") or spec.max_steps
        return int(game), int(self.section("dream").get("max_steps") or spec.max_steps)

    @property
    def compares_rewards(self) -> bool:
        """Whether dream and game were compared by rewards, not by steps survived."""
        return any(row.measure == "reward" for row in self.fidelity)

    @property
    def reward_variance(self) -> float | None:
        """Loss of a reward prediction that is always the held-out rewards' mean."""
        return self.figures("train-rnn").get("held_out_reward_variance")


def environment_line(settings: dict[str, Any]) -> str:
    """Return an evaluation's environment with its arguments, seed and versions, as one line.

    Args:
        settings: of an `Evaluation`.
    """
    environment, versions = (
        ", ".join(f"{name} {value}" for name, value in settings[key].items() if value is not None)
        for key in ("environment", "versions")
    )
    return f"{settings['env_id']} ({environment}), seed {settings['seed']}; {versions}"
