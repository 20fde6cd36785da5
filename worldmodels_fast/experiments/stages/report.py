"""The stage `report`."""

from __future__ import annotations

from typing import Any

from worldmodels_fast.experiments.run import Run
from worldmodels_fast.utils.progress import console


def stage_report(run: Run) -> dict[str, Any]:
    """Draw everything into one page, `report.html`, and write the world's model card."""
    from worldmodels_fast.report.model_card import write_card
    from worldmodels_fast.report.page import write_report

    if run.world.is_dir():
        write_card(run.folder)
    console.print(f"report: {write_report(run.folder)}")
    return {}
