#!/usr/bin/env bash
# What `make bench` runs: our own figures. Arguments go to run.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
.venv/bin/python benchmarks/run.py "$@"
.venv/bin/python benchmarks/follower_latency.py
.venv/bin/python benchmarks/failover.py --kills 10
