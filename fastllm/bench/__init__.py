"""The benchmark: lanes side by side in one run, ours and those of transformers.

`measure` runs the lanes, `baselines` are those of transformers, `simulate` measures what a large
model costs without its weights, `report` makes numbers and tables of a run.
"""
