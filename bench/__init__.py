"""Measure Holdline's cost per streamed token, next to byte pipes and typical chat handlers.

`run` is the entry point. `harness` starts the fake `upstream` and the `proxies`, and runs `load`,
which opens the streams in a separate process; `job` defines the messages between the two, and
`verify` checks every received stream. `measurements` describes the loads, and `compare` measures
the proxies in interleaved rounds. `scenarios`, `capacity`, `conversations` and `baseline` turn the
figures into tables of `report`. `page` measures the browser.
"""
