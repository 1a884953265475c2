"""Ends every run with the list of what was not run, and why."""

import pytest
from _pytest.terminal import TerminalReporter


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Group skipped tests by reason, so that a passing run says what it did not show."""
    by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.getreports("skipped"):
        by_reason.setdefault(_reason(report), []).append(report.nodeid)
    terminalreporter.section("not run")
    if not by_reason:
        terminalreporter.line("every selected test ran")
    for reason, tests in sorted(by_reason.items()):
        terminalreporter.line(f"{len(tests)} not run: {reason}")
        for test in tests:
            terminalreporter.line(f"    {test}")
