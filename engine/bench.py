"""Runs one of vLLM's own benchmarks, by an order in a folder that both sides share.

`python -P -m engine.bench FOLDER`: FOLDER/order.json says which one; vLLM's figures go to FOLDER/result.json. `serve`
asks a server that runs elsewhere, and shows it the key in FOLDER/key where there is one. `startup` starts the engine
that the settings at hand describe, with cold caches and with warm ones.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import batch, catalog, names, serve, settings
from engine.messages import Exit, Problem, complain

ORDER, RESULT, KEY = "order.json", "result.json", "key"
SERVE, STARTUP = "serve", "startup"
PERCENTILES = (5, *range(10, 100, 10), 95, 99)
_INSIDE = "engine.bench_vllm"


def serve_words(order: Mapping[str, Any], folder: Path) -> list[str]:
    """The flags of `vllm bench serve` for an order; its own `more` come last, and so win."""
    words = ["--backend=openai-chat", "--endpoint=/v1/chat/completions", f"--base-url={order['url']}"]
    words += [f"--model={order['model']}", f"--tokenizer={settings.model_path(order['tokenizer'])}"]
    words += [f"--num-prompts={order['requests']}", f"--max-concurrency={order['concurrency']}"]
    words += [f"--num-warmups={order['concurrency']}", f"--seed={order['seed']}"]
    words += [f"--request-rate={order['rate']}"] if order["rate"] else []
    # As long as was asked for, so that two runs do the same work.
    lengths = [f"--random-input-len={order['input_tokens']}", f"--random-output-len={order['output_tokens']}"]
    words += ["--dataset-name=random", *lengths, "--ignore-eos"]
    words += ["--percentile-metrics=ttft,tpot,itl,e2el", f"--metric-percentiles={','.join(map(str, PERCENTILES))}"]
    words += ["--insecure"] if order["insecure"] else []
    saved = ["--save-result", f"--result-dir={folder}", f"--result-filename={RESULT}"]
    return [*words, *order["more"], *saved]


def client_environment(environ: Mapping[str, str], key_file: Path) -> dict[str, str]:
    """This process's without the settings of a server, of which vLLM would warn; with the key for the one asked."""
    known = catalog.load(environ.get(names.DEVICE), environ).variables
    kept = {name: value for name, value in environ.items() if name in known or not names.is_setting_like(name)}
    return {**kept, "OPENAI_API_KEY": key_file.read_text().strip()} if key_file.exists() else kept


def startup_command(argv: Sequence[str], folder: Path) -> list[str]:
    """The command that serves, as one that measures its start: its flags are taken over as they stand."""
    return batch.in_its_place(argv, _INSIDE, [STARTUP, str(folder)])


def main() -> int:
    """Carry the order out; returns only with a problem."""
    mode = [word for word in sys.argv[1:] if word == "--dry-run"]
    words = [word for word in sys.argv[1:] if word not in mode]
    try:
        folder = Path(words[0])
        order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
        if order["kind"] == STARTUP:
            return serve.launch(mode, os.environ, lambda argv: startup_command(argv, folder))
        argv = [sys.executable, "-P", "-m", _INSIDE, SERVE, str(folder), *serve_words(order, folder)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        complain(Problem(f"engine.bench has no order that it understands ({error!r})", "scripts/berth bench gives it"))
        return Exit.BAD_SETTING
    os.execve(argv[0], argv, client_environment(os.environ, folder / KEY))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
