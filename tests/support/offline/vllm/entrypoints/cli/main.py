"""Stands where vLLM's command line would: `vllm serve MODEL …` for the tests of batches, without an engine."""

import sys
from argparse import Namespace

from vllm.entrypoints.cli import serve


def main() -> None:
    """Hand the arguments to `serve`, read as far as the tests need."""
    words = sys.argv[1:]
    assert words[0] == "serve", words
    serve.ServeSubcommand.cmd(Namespace(model_tag=words[1], model=None, words=words))
