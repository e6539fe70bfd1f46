#!/usr/bin/env bash
# What `make bench` runs: our own figures. Arguments go to run.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/python benchmarks/run.py "$@"
