"""The stages of a run: each reads what the one before wrote, can be run alone, and resumes.

frames -> V -> latents -> M -> dream -> C -> CMA-ES -> real game -> report

A stage that is finished leaves `stages/NAME.json` in the run's folder: its settings, how long it
took, on what machine, and its figures. Running it again does nothing, unless its settings have
changed: then it is an error that says what to delete, so that nothing is lost by accident.

A run may begin with stages that another run has finished (`adopt`): an ablation shares what it does
not change, and each row of the temperature table is a run that shares V and M.

`run` is what lies in a run's folder, `pipeline` which stages there are; the others are the stages.
"""

from worldmodels_fast.stages.pipeline import (
    STAGES,
    Stage,
    adopt,
    compare_run,
    open_run,
    run_all,
    run_stage,
)
from worldmodels_fast.stages.run import Run

__all__ = ["STAGES", "Run", "Stage", "adopt", "compare_run", "open_run", "run_all", "run_stage"]
