"""Settings of earlier versions in today's names.

A run's folder is read by later versions: config.json, the records in stages/, and the evolution's
saved state. What moved since then stands in `MOVED`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "FORMAT",
    "migrate_config",
    "migrate_identity",
    "recorded_settings",
    "renamed_option",
]

FORMAT = 2
"""Of a stage's record: its settings are flat, {"vae.steps": 150}. Before, they were sections."""

MOVED: dict[str, tuple[str, ...]] = {
    "evolve.where": ("evolve_in",),
    "evolve.temperature": ("dream.temperature",),
    "evolve.max_steps": ("dream.max_steps", "game.max_steps"),
    "evolve.patience": ("game.patience",),
    "evolve.precision": ("dream.precision",),
    "evolve.vae_precision": ("game.vae_precision",),
    "evolve.device": ("dream.device", "game.device"),
    "evolve.workers": ("game.workers",),
    "death.threshold": ("dream.done_threshold",),
    "death.temperature": ("dream.done_temperature",),
    "death.calibrated": ("dream.calibrated",),
}
"""Today's names of settings by the name that they had."""

UNCUT = 2100
"""The former default of `evolve.max_steps`, which cut no game; None today."""

SECTIONS_OF_FORMAT_1 = {
    "collect": ("collect", "round"),
    "train-vae": ("vae",),
    "encode": (),
    "train-rnn": ("rnn",),
    "fidelity": ("fidelity", "death"),
    "quality": ("quality", "death"),
    "evolve": ("evolve", "death", "controller", "gap"),
    "evaluate": ("evaluate",),
    "sweep-temperature": ("evolve", "death", "controller", "gap", "sweep"),
}
"""The sections that a stage's record of format 1 holds."""


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json's content, of whatever version, in today's sections and names."""
    new = {key: dict(v) if isinstance(v, Mapping) else v for key, v in config.items()}
    for old, names in MOVED.items():
        section, _, field = old.partition(".")
        if isinstance(new.get(section), dict) and field in new[section]:
            value = new[section].pop(field)
            for name in names:
                part, _, setting = name.rpartition(".")
                (new.setdefault(part, {}) if part else new)[setting] = _value(name, value)
    if not new.get("death", True):
        del new["death"]
    return new


def recorded_settings(
    stage: str, record: Mapping[str, Any], names: Iterable[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings that a stage was done with, as far as its record says.

    A setting that did not exist then has its default. One that existed, and that the version of
    then did not record, is unknown and left out.

    Args:
        stage: the stage's name.
        record: of the stage, finished or begun.
        names: the settings asked for, "vae.steps".
        defaults: of all settings, by name.
    """
    settings = record["settings"]
    if record.get("format") == FORMAT:
        return {name: settings.get(name, defaults.get(name)) for name in names}
    flat: dict[str, Any] = {}
    for key, value in migrate_config(settings).items():
        if isinstance(value, Mapping) and key != "env_kwargs":
            flat |= {f"{key}.{field}": item for field, item in value.items()}
        else:
            flat[key] = value
    held = SECTIONS_OF_FORMAT_1.get(stage, ())
    for name in names:
        if name not in flat and _former_section(name) in held:
            flat[name] = defaults[name]
    return {name: flat[name] for name in names if name in flat}


def migrate_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of an evolution's saved state, of whatever version, in today's names."""
    new: dict[str, Any] = {}
    for name, value in identity.items():
        for today in MOVED.get(f"evolve.{name}", (name,)):
            new[today] = _value(today, value)
    return new


def renamed_option(argument: str) -> str | None:
    """Return what to type for an option that had another name before; None for any other argument.

    >>> renamed_option("--evolve.temperature=1.3")
    '--evolve.temperature: it is --dream.temperature now'
    """
    option = argument.partition("=")[0]
    names = MOVED.get(option.removeprefix("--").replace("-", "_"))
    if names is None or not option.startswith("--"):
        return None
    return f"{option}: it is {' or '.join('--' + n.replace('_', '-') for n in names)} now"


def _former_section(name: str) -> str:
    former = next((old for old, names in MOVED.items() if name in names), name)
    return former.partition(".")[0]


def _value(name: str, value: Any) -> Any:
    return None if name == "game.max_steps" and value == UNCUT else value
