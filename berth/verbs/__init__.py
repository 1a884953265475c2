"""Verbs, a family to a module; `berth/cli.py` puts them together."""
