"""The operator's command line: one env file in, a served model out. See docs/command-line.md."""

__version__ = "0.1.0"
