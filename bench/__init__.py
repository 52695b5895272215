"""What a streamed token costs, side by side: Holdline, byte pipes, and handlers as they are usually written.

`run` is the entry. It starts `upstream` (the model's stand-in) and the peers (`relays`), each alone on one
core, and has `load` (the viewers) ask them in turns; `scenarios` say what is asked on the test `bed`, `cpu`
reads the processes' clocks, `report` makes tables of it. `page` measures the browser's side.
"""
