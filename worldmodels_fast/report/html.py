"""Pieces of the report's page: tables, figures and pictures."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from worldmodels_fast.utils.figures import figure_png
from worldmodels_fast.utils.files import write_bytes

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
img { max-width: 100%; image-rendering: pixelated; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ccc;
       text-align: left; } pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; }
.note { color: #555; }
"""


def html_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; cells are escaped, and each row has as many cells as the head."""

    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def embedded_figure(figure: Figure, folder: Path, name: str) -> str:
    """Return an <img> that holds the picture, and write it to `figures/NAME.png`, too."""
    return _embedded(figure_png(figure), folder, name)


def embedded_image(image: Image.Image, folder: Path, name: str) -> str:
    """Return an <img> that holds the picture, and write it to `figures/NAME.png`, too."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return _embedded(buffer.getvalue(), folder, name)


def _embedded(png: bytes, folder: Path, name: str) -> str:
    """Return an <img> that holds the picture; write it to `figures/NAME.png`, too."""
    write_bytes(folder / "figures" / f"{name}.png", png)
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
