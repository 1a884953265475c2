"""Stands where vLLM's command line would: `vllm serve MODEL …` for the tests of batches, without an engine."""

import sys
from argparse import Namespace
from importlib import import_module
from typing import Any


def main() -> None:
    """Hand the arguments to `serve`, read as far as the tests need."""
    words = sys.argv[1:]
    assert words[0] == "serve", words
    serve: Any = import_module("vllm.entrypoints.cli.serve")
    serve.ServeSubcommand.cmd(Namespace(model_tag=words[1], model=None, words=words))
