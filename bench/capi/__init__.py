"""`ndp-rt bench capi`: what the C face costs, and whether it holds.

`source/` is a host in C++, compiled for the run and driven by lines (`host`); `run` makes the record.
"""
