"""How good the dream is, measured on held-out episodes; the stage `quality`.

`held_out` reads the episodes, `dreaming` runs M beside them, and one module each measures V
(`seeing`), dreams of many tics (`prediction`), the death head (`deaths`), survival (`survival`) and
what Take Cover's dream shows (`take_cover`). `measure` calls them all, `tables` prints, `figures`
draws.
"""

from worldmodels_fast.quality.config import QualityConfig
from worldmodels_fast.quality.held_out import HeldOut
from worldmodels_fast.quality.measure import measure

__all__ = ["HeldOut", "QualityConfig", "measure"]
