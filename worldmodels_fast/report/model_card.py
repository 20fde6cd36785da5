"""The model card of a finished world: its form, how it was made, its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels_fast.evaluation.beside_random import UNMODIFIED, unmodified_beside
from worldmodels_fast.evaluation.fidelity.row import fidelity_table
from worldmodels_fast.evaluation.quality import tables
from worldmodels_fast.evaluation.quality.contents import contents_of
from worldmodels_fast.report.records import RunRecords, environment_line
from worldmodels_fast.utils.files import write_text

FRONT_MATTER = """---
license: mit
library_name: worldmodels_fast
tags: [world-models, reinforcement-learning, vae, mdn-rnn, cma-es, {environment}]
---
"""


def write_card(folder: Path) -> Path:
    """Write `world/README.md` from a run's records; return its path.

    Every figure is read from the records of the run's stages; a stage that has not run leaves its
    section out.

    Args:
        folder: the run's folder.

    Raises:
        ValueError: the run has no finished world, or a file of the run is damaged.
    """
    records = RunRecords(folder)
    if records.world is None:
        raise ValueError(f"{folder / 'world'}: no finished world; run the stage `evolve` first")
    lines = [
        *_what(records, records.world["dream"]),
        *_made(records),
        *_scores(records),
        *_fidelity(records),
        *_quality(records),
    ]
    path = folder / "world" / "README.md"
    front_matter = FRONT_MATTER.format(environment=records.environment)
    write_text(path, front_matter + "\n".join(lines) + "\n")
    return path


def _what(records: RunRecords, dream: dict[str, Any]) -> list[str]:
    config, environment = records.config, records.environment
    settings = ", ".join(f"{k} {v}" for k, v in config["env_kwargs"].items())
    if records.evolved_in == "game":
        place = "in the real game."
    else:
        place = "inside the dream alone and never saw a reward of the real game."
        if records.predicts_reward:
            place += " M predicts the dream's rewards, which the paper's does not."
    end = "with no end of its own"
    if records.predicts_done:
        end = _end_rule(dream["done_threshold"], dream.get("done_temperature", 0.0))
    return [
        f"# {environment}: V, M, C and first latents",
        "",
        "A world model after Ha & Schmidhuber (2018): V, a VAE, sees 64x64 frames; M, an LSTM "
        f"with a mixture density head, dreams on; C, {_form(records.section('controller'))}, was "
        f"evolved by CMA-ES {place}",
        "",
        f"- environment: {environment}{f' ({settings})' if settings else ''}",
        f"- recipe: `worldmodels-fast run {config['recipe']}{_from(records)}`, seed "
        f"{config['seed']}",
        f"- dream: temperature {dream['temperature']:g}, at most {dream['max_steps']:,} steps, "
        f"{end}",
        "- files: safetensors, 16-bit floats; `worldmodels_fast.load_pretrained(FOLDER)`",
        "- intended for research and teaching; it knows this one game and nothing else",
        "",
    ]


def _form(controller: dict[str, Any]) -> str:
    units = controller["hidden_units"]
    kind = f"a tanh layer of {units} units" if units else "a linear layer"
    memory = controller.get("memory") == "untrained"
    untrained = ", the memory being an untrained M's" if memory else ""
    return f"{kind} that sees {' and '.join(controller['features'])}{untrained}"


def _from(records: RunRecords) -> str:
    base = records.section("round").get("base")
    return f" --from runs/{Path(base).name}" if base else ""


def _end_rule(threshold: float, temperature: float) -> str:
    if temperature == 0.0:
        return f"over when the done logit exceeds {threshold:g}"
    scaled = f"(done logit - {threshold:g})" + (f" / {temperature:g}" if temperature != 1 else "")
    return f"over with probability sigmoid({scaled}) in each step"


def _made(records: RunRecords) -> list[str]:
    return [
        "## How it was made",
        "",
        *_collected(records),
        *_trained(records),
        *_evolved(records),
        "",
    ]


def _collected(records: RunRecords) -> list[str]:
    lines = []
    if "collect" in records.stages:
        collect = records.section("collect")
        lines.append(
            f"- {collect['episodes']:,} episodes under {', '.join(collect['policies'])} actions"
        )
    further = records.section("round")
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
    return lines


def _trained(records: RunRecords) -> list[str]:
    lines = []
    for title, log, keys in (
        ("V", records.vae_log, ("reconstruction", "held_out_reconstruction", "kl")),
        ("M", records.mdn_rnn_log,
         ("z_loss", "held_out_z_loss", "done_loss", "held_out_done_loss", "reward_loss",
          "held_out_reward_loss")),
    ):  # fmt: skip
        rows = [row for row in log if keys[0] in row]
        if rows:
            figures = ", ".join(
                f"{key.replace('_', ' ')} {rows[-1][key]:.3g}"
                for key in keys
                if key in rows[-1] and (records.predicts_done or "done" not in key)
            )
            lines.append(f"- {title}: {rows[-1]['step']:,.0f} batches; {figures}")
    if (variance := records.reward_variance) is not None:
        limit = records.section("rnn").get("reward_limit")
        limited = "" if limit is None else f", limited to +- {limit:g}"
        lines.append(
            f"- M predicts the reward of each step{limited}: its loss is the squared error; the "
            f"held-out rewards' mean alone has {variance:.3g}"
        )
    return lines


def _evolved(records: RunRecords) -> list[str]:
    figures, place = records.figures("evolve"), records.evolved_in
    if not figures:
        return []
    speed = ""
    if "core_hours" in figures:
        speed = (
            f" ({figures['steps_per_second']:,.0f} steps/s, "
            f"{figures['core_hours']:,.1f} core-hours)"
        )
    return [
        f"- C: {figures['generations']} generations of CMA-ES, {figures[f'{place}_steps']:,} "
        f"{place} steps{speed}; the mean after generation {figures['from_generation'] + 1}, which "
        f"scored {figures[f'score_in_the_{place}']:.0f} in the {place}, was kept"
    ]


def _scores(records: RunRecords) -> list[str]:
    evaluations = records.evaluations
    if not evaluations:
        return []
    rows = [
        f"| {name} | {s.n} | {s.mean:.0f} +- {s.std:.0f} | {s.low:.0f} to {s.high:.0f} |"
        for name, s in ((name, e.summary()) for name, e in evaluations.items())
    ]
    rows += [
        f"| the paper: {name} | 100 | {mean:.0f} +- {std:.0f} | - |"
        for name, (mean, std) in records.paper_scores.items()
    ]
    lines = [
        "## Score in the real game",
        "",
        "| player | episodes | mean +- std | 95% interval of the mean |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"{records.score.capitalize()}, on seeds that nothing was trained on; every episode is in "
        "`evaluation.json`.",
    ]
    lines += [
        f"{line}."
        for line in dict.fromkeys(environment_line(e.settings) for e in evaluations.values())
    ]
    if UNMODIFIED in evaluations:
        lines.append(
            f"`{UNMODIFIED}` is the same agent on the same seeds in the game's unmodified "
            f"environment, with its own drawing: {unmodified_beside(evaluations)}"
        )
    return [*lines, ""]


def _fidelity(records: RunRecords) -> list[str]:
    rows = records.fidelity
    if not rows:
        return []
    if records.compares_rewards:
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
        "Where the last column is far above 1, the dream is less deadly than the game, and a "
        "controller evolved in it may rely on that.",
        "",
    ]


def _quality(records: RunRecords) -> list[str]:
    result = records.quality
    if result is None:
        return []
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
