"""Measures Tallystick beside what one would use instead: `scripts/bench`, docs/performance.md.

Each contender is one class with the same three methods (`contender.py`) and runs in a process of
its own (`apart.py`). `contenders.py` lists them, `run.py` lets them take turns, `results.py`
makes medians and ratios of the rounds, `shown.py` a table and a picture. No figure is written by
hand.
"""
