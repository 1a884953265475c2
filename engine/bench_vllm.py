"""Inside vLLM's Python: the functions behind `vllm bench serve` and `vllm bench startup`.

`vllm bench` itself builds every benchmark's parser first, which takes half a minute on a small machine, and on one
without the device fails. Where it is to start an engine, it takes the flags of `vllm serve`.
"""

import argparse
import json
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from engine.bench import ORDER, SERVE


def ask_server(words: list[str]) -> None:
    """`vllm bench serve` with these flags."""
    module: Any = import_module("vllm.benchmarks.serve")
    parser = argparse.ArgumentParser(prog="vllm bench serve")
    module.add_cli_args(parser)
    module.main(parser.parse_args(words))


def time_start(args: argparse.Namespace, order: dict[str, Any], result: Path) -> None:
    """`vllm bench startup` with the flags of `vllm serve`, as parsed."""
    module: Any = import_module("vllm.benchmarks.startup")
    args.model = getattr(args, "model_tag", None) or args.model
    args.num_iters_cold, args.num_iters_warm, args.num_iters_warmup = order["cold"], order["warm"], 1
    args.output_json = str(result)
    module.main(args)


def main() -> None:
    """`python -m engine.bench_vllm serve FOLDER flags…`, or `startup FOLDER serve MODEL flags…`."""
    kind, folder, words = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    (folder / "client.json").write_text(json.dumps({"vllm": _version()}))
    if kind == SERVE:
        ask_server(words)
        return
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    sys.argv = ["vllm", *words]
    served: Any = import_module("vllm.entrypoints.cli.serve")
    served.ServeSubcommand.cmd = staticmethod(lambda args: time_start(args, order, folder / "result.json"))
    program: Any = import_module("vllm.entrypoints.cli.main")
    program.main()


def _version() -> str:
    try:
        return metadata.version("vllm").partition("+")[0]  # as the server tells its own
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
