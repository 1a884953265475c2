"""The subcommand whose work engine.batch_vllm puts its own in place of."""

from argparse import Namespace


class ServeSubcommand:
    """`vllm serve`."""

    @staticmethod
    def cmd(args: Namespace) -> None:
        """Never called by a batch."""
        raise AssertionError("a batch does not serve")
