"""Stands in for a load process: tells the parent of 100 operations, the n-th of which took n ms."""

import json
import sys

job = json.loads(sys.argv[1])


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    if job["endpoints"] == ["fails:1"]:
        say(event="failed", message="no server could be reached", exit_code=2)
        sys.exit(1)
    if job["endpoints"] == ["dies:1"]:
        sys.exit(1)
    say(event="ready")
    window = json.loads(sys.stdin.readline())
    say(event="progress", total=7, errors=0)
    if job["endpoints"] == ["hangs:1"]:
        sys.stdin.read()
        return
    refused = job["endpoints"] == ["refuses:1"]
    say(
        event="done",
        answered=0 if refused else int(100 * window["duration_s"]),
        errors=3 if refused else 0,
        first_error="Unavailable: no leader" if refused else "",
        latencies_us={} if refused else {str(ms * 1000): 1 for ms in range(1, 101)},
    )
    sys.stderr.write(f"clean {bool(sys.stdin.readline())}\n")


main()
