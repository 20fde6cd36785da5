"""Figures as PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodels_fast.utils.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_png(figure: Figure) -> bytes:
    """Return a figure's PNG, 110 pixels per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure's PNG, whole or not at all."""
    write_bytes(path, figure_png(figure))
