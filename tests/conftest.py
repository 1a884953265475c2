"""Ends every run with the list of what was not run, and why.

scripts/test may call pytest more than once; BERTH_NOT_RUN names the file in which it gathers the lists.
"""

import os
from pathlib import Path

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
    lines = []
    for reason, tests in sorted(by_reason.items()):
        lines += [f"{len(tests)} not run: {reason}", *(f"    {test}" for test in tests)]
    for line in lines:
        terminalreporter.line(line)
    if lines and (gathered := os.environ.get("BERTH_NOT_RUN")):
        with Path(gathered).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
