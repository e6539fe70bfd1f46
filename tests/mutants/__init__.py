"""Bugs planted on purpose, to show that the simulator finds them; `python -m tests.mutants` runs the hunt."""
