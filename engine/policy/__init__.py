"""The pure policy core: integers, text and `now_ms` go in, decisions come out.

Nothing here reads a clock, a disk, a network or a random source, so the same input gives the same
decision everywhere, and an auditor can replay it. Amounts are integers of micro-USD, times are
integers of milliseconds since the epoch, and ranges are half-open.
"""
