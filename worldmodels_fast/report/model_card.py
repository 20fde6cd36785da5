"""The model card of a finished world: what it is, how it was made, how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels_fast import envs
from worldmodels_fast.evaluation.beside_random import UNMODIFIED, unmodified_beside
from worldmodels_fast.evaluation.fidelity.file import read_fidelity
from worldmodels_fast.evaluation.fidelity.row import fidelity_table
from worldmodels_fast.evaluation.quality import tables
from worldmodels_fast.evaluation.quality.contents import contents_of
from worldmodels_fast.evaluation.scores import load_evaluations
from worldmodels_fast.utils.files import read_json, read_json_lines, write_text

FRONT_MATTER = """---
license: mit
library_name: worldmodels_fast
tags: [world-models, reinforcement-learning, vae, mdn-rnn, cma-es, {environment}]
---
"""


def write_card(folder: Path) -> Path:
    """Write `world/README.md` from a run's records; return its path.

    Every figure is read from what the run's stages have left; a stage that has not run leaves its
    section out.

    Args:
        folder: the run's folder.

    Raises:
        ValueError: the run has no finished world.
    """
    world = folder / "world"
    if not (world / "config.json").is_file():
        raise ValueError(f"{world}: no finished world; run the stage `evolve` first")
    config = read_json(folder / "config.json") or {}
    path = world / "README.md"
    write_text(
        path,
        FRONT_MATTER.format(environment=config["environment"])
        + "\n".join(
            [
                *_what(config, (read_json(world / "config.json") or {})["dream"]),
                *_made(folder),
                *_scores(folder),
                *_fidelity(folder),
                *_quality(folder),
            ]
        )
        + "\n",
    )
    return path


def _what(config: dict[str, Any], dream: dict[str, Any]) -> list[str]:
    settings = ", ".join(f"{k} {v}" for k, v in config["env_kwargs"].items())
    return [
        f"# {config['environment']}: V, M, C and first latents",
        "",
        "A world model after Ha & Schmidhuber (2018): V, a VAE, sees 64x64 frames; M, an LSTM "
        f"with a mixture density head, dreams on; C, {_form(config)}, was evolved by CMA-ES "
        + (
            "in the real game."
            if _where(config) == "game"
            else "inside the dream alone and never saw a reward of the real game."
            + (
                " M predicts the dream's rewards, which the paper's does not."
                if _predicts_reward(config)
                else ""
            )
        ),
        "",
        f"- environment: {config['environment']}{f' ({settings})' if settings else ''}",
        f"- recipe: `worldmodels-fast run {config['recipe']}{_from(config)}`, seed "
        f"{config['seed']}",
        f"- dream: temperature {dream['temperature']:g}, at most {dream['max_steps']:,} steps, "
        + (
            _end_rule(dream["done_threshold"], dream.get("done_temperature", 0.0))
            if config["rnn"]["predicts_done"]
            else "with no end of its own"
        ),
        "- files: safetensors, 16-bit floats; `worldmodels_fast.load_pretrained(FOLDER)`",
        "- intended for research and teaching; it knows this one game and nothing else",
        "",
    ]


def _where(config: dict[str, Any]) -> str:
    """What C was evolved in, "dream" or "game"."""
    return str(config["evolve"].get("where", "dream"))


def _predicts_reward(config: dict[str, Any]) -> bool:
    return bool(config["rnn"].get("predicts_reward", False))


def _form(config: dict[str, Any]) -> str:
    c = config["controller"]
    kind = f"a tanh layer of {c['hidden_units']} units" if c["hidden_units"] else "a linear layer"
    untrained = ", the memory being an untrained M's" if c.get("memory") == "untrained" else ""
    return f"{kind} that sees {' and '.join(c['features'])}{untrained}"


def _from(config: dict[str, Any]) -> str:
    base = config.get("round", {}).get("base")
    return f" --from runs/{Path(base).name}" if base else ""


def _end_rule(threshold: float, temperature: float) -> str:
    if temperature == 0.0:
        return f"over when the done logit exceeds {threshold:g}"
    scaled = f"(done logit - {threshold:g})" + (f" / {temperature:g}" if temperature != 1 else "")
    return f"over with probability sigmoid({scaled}) in each step"


def _made(folder: Path) -> list[str]:
    records = {}
    for path in sorted((folder / "stages").glob("*.json")):
        records[path.stem] = read_json(path) or {}
    lines = ["## How it was made", ""]
    lengths = folder / "episodes"
    config = read_json(folder / "config.json") or {}
    if lengths.is_dir():
        lines.append(
            f"- {config['collect']['episodes']:,} episodes under "
            f"{', '.join(config['collect']['policies'])} actions"
        )
    further = config.get("round", {})
    if further.get("base"):
        least = further["sigma"] / further.get("spread", 1.0)
        noise = f"{further['sigma']:g}"
        if least < further["sigma"]:
            noise = f"{least:g} to {noise}"
        lines.append(
            f"- a further round: {further['episodes']:,} episodes that the agent of the round "
            f"before ({Path(further['base']).name}) played, with noise of "
            f"{noise} on its parameters; V is that round's, M went on from its M"
        )
    for title, name, keys in (
        ("V", "vae.log.jsonl", ("reconstruction", "held_out_reconstruction", "kl")),
        ("M", "mdn_rnn.log.jsonl",
         ("z_loss", "held_out_z_loss", "done_loss", "held_out_done_loss", "reward_loss",
          "held_out_reward_loss")),
    ):  # fmt: skip
        rows = [row for row in read_json_lines(folder / name) if keys[0] in row]
        if rows:
            figures = ", ".join(
                f"{key.replace('_', ' ')} {rows[-1][key]:.3g}"
                for key in keys
                if key in rows[-1] and (config["rnn"]["predicts_done"] or "done" not in key)
            )
            lines.append(f"- {title}: {rows[-1]['step']:,.0f} batches; {figures}")
    variance = records.get("train-rnn", {}).get("figures", {}).get("held_out_reward_variance")
    if variance is not None:
        limit = config["rnn"].get("reward_limit")
        limited = "" if limit is None else f", limited to +- {limit:g}"
        lines.append(
            f"- M predicts the reward of each step{limited}: its loss is the squared error; the "
            f"held-out rewards' mean alone has {variance:.3g}"
        )
    evolve = records.get("evolve")
    if evolve is not None:
        f, where = evolve["figures"], _where(config)
        rest = ""
        if "core_hours" in f:
            rest = f" ({f['steps_per_second']:,.0f} steps/s, {f['core_hours']:,.1f} core-hours)"
        lines.append(
            f"- C: {f['generations']} generations of CMA-ES, {f[f'{where}_steps']:,} {where} steps"
            f"{rest}; the mean after generation {f['from_generation'] + 1}, which scored "
            f"{f[f'score_in_the_{where}']:.0f} in the {where}, was kept"
        )
    return [*lines, ""]


def _scores(folder: Path) -> list[str]:
    path = folder / "evaluation.json"
    if not path.is_file():
        return []
    evaluations = load_evaluations(path)
    spec = envs.ENVIRONMENTS.get((read_json(folder / "config.json") or {})["environment"])
    score = spec.score if spec else "steps survived"
    rows = [
        f"| {name} | {len(e.episodes)} | {e.summary().mean:.0f} +- {e.summary().std:.0f} | "
        f"{e.summary().low:.0f} to {e.summary().high:.0f} |"
        for name, e in evaluations.items()
    ]
    rows += [
        f"| the paper: {name} | 100 | {mean:.0f} +- {std:.0f} | - |"
        for name, (mean, std) in (spec.paper_scores if spec else {}).items()
    ]
    lines = [
        "## Score in the real game",
        "",
        "| player | episodes | mean +- std | 95% interval of the mean |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"{score.capitalize()}, on seeds that nothing was trained on; every episode is in "
        "`evaluation.json`.",
    ]
    lines += dict.fromkeys(_environment_line(e.settings) for e in evaluations.values())
    if UNMODIFIED in evaluations:
        lines.append(
            f"`{UNMODIFIED}` is the same agent on the same seeds in the game's unmodified "
            f"environment, with its own drawing: {unmodified_beside(evaluations)}"
        )
    return [*lines, ""]


def _environment_line(settings: dict[str, Any]) -> str:
    environment = ", ".join(f"{k} {v}" for k, v in settings["environment"].items() if v is not None)
    versions = ", ".join(f"{k} {v}" for k, v in settings["versions"].items())
    return f"{settings.get('env_id', 'The environment')}: {environment}; {versions}."


def _fidelity(folder: Path) -> list[str]:
    rows = read_fidelity(folder / "fidelity.json")
    if not rows:
        return []
    if any(row.measure == "reward" for row in rows):
        return [
            "## Does the dream pay what the game pays?",
            "",
            "Sums of rewards: the game's, and those that M predicts in the dream at temperature 1, "
            "over as many steps as the game has at most:",
            "",
            fidelity_table(rows),
            "",
            "Where the last column is far above 0, the dream pays for what the game does not, and "
            "a controller evolved in it may rely on that.",
            "",
        ]
    return [
        "## Is the dream as deadly as the game?",
        "",
        "Steps that each player survives, in the game and in the dream at temperature 1:",
        "",
        fidelity_table(rows),
        "",
        "Where the last column is far above 1, the dream forgets to kill, and a controller evolved "
        "in it may rely on that.",
        "",
    ]


def _quality(folder: Path) -> list[str]:
    path = folder / "quality.json"
    if not path.is_file():
        return []
    result = read_json(path) or {}
    lines = ["## How good is the dream?", "", tables.markdown(tables.losses(result)), ""]
    lines += [tables.about_losses(result), ""]
    if "prediction" in result:
        lines += [tables.markdown(tables.predictions(result)), ""]
        lines += [tables.about_predictions(result), ""]
    if "deaths" in result:
        lines += [tables.markdown(tables.head(result)), "", tables.about_head(result), ""]
    if found := contents_of(result):
        module, contents = found
        for table in module.tables(contents):
            lines += [tables.markdown(table), ""]
    return lines
