"""Dream fidelity: the same players in the dream and in the game; `fidelity.json`.

`compare` lets open-loop policies and controllers play in both and prints the table, `row` holds one
player's scores in both, `file` reads and writes fidelity.json, `survival` compares survival curves.
"""
