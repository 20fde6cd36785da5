"""A configuration that notes which of its settings are read."""

import dataclasses
import sys
from types import FrameType
from typing import Any

from worldmodels_fast.experiments.config import RunConfig


def recording(config: RunConfig, reads: set[str]) -> RunConfig:
    """Return a copy of the configuration that adds the names of settings that are read to `reads`.

    Names are "seed" or "vae.steps". Copies of whole sections (`dataclasses.replace`, `asdict`) are
    no reads, but go on recording; nor are reads of functions whose names begin with "check", which
    raise an error or decide nothing.
    """
    sections = {
        field.name: _recorder(value, f"{field.name}.", reads)
        for field in dataclasses.fields(config)
        if dataclasses.is_dataclass(value := getattr(config, field.name))
    }
    recorded = _recorder(dataclasses.replace(config, **sections), "", reads)
    assert isinstance(recorded, RunConfig)
    return recorded


def _recorder(section: Any, prefix: str, reads: set[str]) -> Any:
    names = {field.name for field in dataclasses.fields(section)}

    def read(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name in names and not dataclasses.is_dataclass(value) and _counts(sys._getframe(1)):
            reads.add(prefix + name)
        return value

    kind = type(section)
    recorder = type(kind.__name__, (kind,), {"__getattribute__": read})
    copy = object.__new__(recorder)
    copy.__dict__.update({name: getattr(section, name) for name in names})
    return copy


def _counts(frame: FrameType | None) -> bool:
    if frame is not None and frame.f_globals.get("__name__") == "dataclasses":
        return False
    while frame is not None:
        if frame.f_code.co_name.lstrip("_").startswith("check"):
            return False
        frame = frame.f_back
    return True
