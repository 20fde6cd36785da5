"""Settings of `worldmodels-fast bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from worldmodels_fast.bench.protocol.cases import CASES, PRECISIONS, split
from worldmodels_fast.bench.protocol.machine import choose_cpus
from worldmodels_fast.bench.rivals.registry import RIVALS
from worldmodels_fast.utils.settings import SettingsCheck

Model = Literal["car_racing", "doom", "take-cover"]
Precision = Literal["fp32", "bf16", "int8"]
RivalName = Literal["torch-eager", "torch-compile", "jax", "onnxruntime"]
Section = Literal["dream", "limits", "growth", "ops"]
Device = Literal["cpu", "cuda"]

SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True)
class BenchConfig:
    """Time our kernels and their rivals in turn; write tables and figures.

    Attributes:
        out: folder of bench.json, bench.md and the figures.
        models: the paper's two sizes with random weights, and the bundled world.
        sizes: numbers of rollouts N side by side: 1 to 16, or multiples of 16.
        precisions: of the matrix products.
        rivals: libraries to compare with; those that are not installed are left out.
        threads: of every contestant, each on a core of its own.
        seconds: of each contestant in each comparison.
        only: sections to do.
        device: "cuda" measures a CUDA device instead, as `gpu.GpuConfig` says: with its own sizes,
            precisions, rivals and sections; only out, models and seconds are used then.
    """

    out: Path = Path("runs/bench")
    models: tuple[Model, ...] = ("car_racing", "doom")
    sizes: tuple[int, ...] = (1, 16, 64, 1024)
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    rivals: tuple[RivalName, ...] = ("torch-eager", "torch-compile", "jax", "onnxruntime")
    threads: int = 2
    seconds: float = 1.0
    only: tuple[Section, ...] = SECTIONS
    device: Device = "cpu"

    def check(self, prefix: str = "--") -> None:
        """Raise ValueError for a setting out of range.

        Args:
            prefix: what the options begin with on the command line.
        """
        for name, values, known in (
            ("models", self.models, CASES),
            ("precisions", self.precisions, PRECISIONS),
            ("rivals", self.rivals, tuple(RIVALS)),
            ("only", self.only, SECTIONS),
        ):
            unknown = [value for value in values if value not in known]
            if unknown:
                raise ValueError(
                    f"{prefix}{name}: expected some of {', '.join(known)}; got {unknown[0]!r}"
                )
        for name, given in (
            ("models", self.models),
            ("sizes", self.sizes),
            ("precisions", self.precisions),
            ("only", self.only),
        ):
            if not given:
                raise ValueError(f"{prefix}{name}: expected at least one, got none")
        check = SettingsCheck(self, prefix)
        check.choice("device", get_args(Device))
        check.integers("threads", low=1)
        check.numbers("seconds", above=0)
        try:
            for n in self.sizes:
                split(n)
            choose_cpus(self.threads)
        except ValueError as error:
            raise ValueError(f"{prefix}{error}") from None
