"""What holds for every test: reproducible properties, and one mark for all that starts processes."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

INTEGRATION = f"{Path(__file__).parent / 'integration'}{os.sep}"
MEASURED = "measured"
"""The property of a test under which the fixture `tell` keeps what it has measured."""

# Nothing may be flaky: the same examples in every run, and no limit on how long one takes on a busy machine.
# HYPOTHESIS_PROFILE=explore draws new ones, to look for what the fixed ones miss.
settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# A shell that starts pytest in the background has it ignore Ctrl-C, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# gRPC's core reports the loss of a connection on stderr, which is what many tests are about.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in tests/integration bears the mark, so that no file can forget it."""
    for item in items:
        if str(item.path).startswith(INTEGRATION):
            item.add_marker(pytest.mark.integration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured belongs in the output of every run, wherever its test ran (see `tell` in integration/)."""
    reports = [each for each in terminalreporter.getreports("passed") if each.when == "call"]
    lines = [f"  {value}" for each in reports for name, value in each.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(lines))
