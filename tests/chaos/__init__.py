"""A fault run: users chat while processes are killed, frozen, stopped and started by a seed.

`python -m tests.chaos --seed 7 --minutes 2 --arrangement two`. docs/durability.md lists the
invariants that it checks.
"""
