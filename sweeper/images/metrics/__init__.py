"""Metrics of one picture, each a column of the table: brightness, sharpness, ..., those of models, and users' own.

`registry` finds the function for a name, `formulas` compute from pixels alone, `learned` asks a local model, and
`measure` measures files. Comparing two pictures is in `sweeper.images.compare`; the store keeps the numbers.
"""
