"""Checks of a section of settings; messages name a setting as it is typed, `--vae.batch`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from worldmodels_fast.utils.arguments import checked_choice, checked_integer, checked_number

__all__ = ["SettingsCheck", "option_of"]


def option_of(prefix: str, name: str) -> str:
    """Return the option of a setting: "--vae.kl-tolerance" of "--vae." and "kl_tolerance"."""
    return prefix + name.replace("_", "-")


@dataclass(frozen=True)
class SettingsCheck:
    """Checks some settings of a section.

    All methods raise ValueError or TypeError with the option, what was expected and what came.

    Attributes:
        section: the dataclass whose settings they are.
        prefix: what its options begin with on the command line, "--" or "--vae.".
    """

    section: object
    prefix: str

    def integers(self, *names: str, low: int, or_none: bool = False) -> None:
        """Check settings that are integers, low or more; with `or_none` None is allowed."""
        for name in names:
            value = getattr(self.section, name)
            if not (or_none and value is None):
                checked_integer(option_of(self.prefix, name), value, low=low)

    def numbers(
        self,
        *names: str,
        low: float = -math.inf,
        above: float = -math.inf,
        or_none: bool = False,
    ) -> None:
        """Check settings that are finite numbers, low or more, and more than `above`."""
        for name in names:
            value = getattr(self.section, name)
            if not (or_none and value is None):
                checked_number(option_of(self.prefix, name), value, low=low, above=above)

    def choice(self, name: str, choices: Sequence[str]) -> None:
        """Check a setting that is one of some names."""
        checked_choice(option_of(self.prefix, name), getattr(self.section, name), choices)

    def device(self, name: str = "device") -> None:
        """Check a setting that names a device of the kernels: "cpu", "cuda", "cuda:1"."""
        value = getattr(self.section, name)
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(value)):
            self.refuse(name, "'cpu', 'cuda' or 'cuda:N'")

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Raise ValueError for a setting that is not `wanted`."""
        value = getattr(self.section, name)
        raise ValueError(f"{option_of(self.prefix, name)}: expected {wanted}, got {value!r}")
