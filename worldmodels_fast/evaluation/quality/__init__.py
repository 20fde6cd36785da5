"""Measures of V and M on held-out episodes: the stage `quality`.

`held_out` reads the episodes, `dreaming` runs M beside them, and one module each measures V
(`seeing`), dreams of many steps (`prediction`), the done head (`deaths`), rewards (`rewards`) and
Take Cover's dream (`take_cover`). `measure` calls them all, `tables` prints, `figures` draws.
"""
