"""Counts of what the fault suites tried, printed at the end; `make test-faults` runs them."""

from collections import Counter

import pytest

COUNTED = ("kills survived", "torn locks repaired", "full disks survived", "inputs tried", "rows lost", "tracebacks")
counted: Counter = Counter()


@pytest.fixture(scope="session")
def counts() -> Counter:
    return counted


def pytest_terminal_summary(terminalreporter):
    if counted:
        terminalreporter.section("faults")
        for name in COUNTED:
            terminalreporter.write_line(f"{name}: {counted[name]}")
