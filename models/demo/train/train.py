"""First part of the training, from nothing; drill.py is the second: `python -m models.demo.train.train --help`.

Needs torch, transformers, tokenizers and safetensors, which every environment with vLLM has. No network, no GPU.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from models.demo.train import chats, tokenizer

CHECKPOINT = Path(__file__).resolve().parents[1]
# head_dim 64 suits every attention kernel; two heads and an even number of layers allow parallel sizes of 2.
SHAPE: dict[str, Any] = {
    "vocab_size": tokenizer.VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": chats.BEGIN,
    "eos_token_id": chats.END,
    "pad_token_id": chats.PAD,
    "initializer_range": 0.04,
}
CONTEXT: int = SHAPE["max_position_embeddings"]
PEAK_RATE = 3e-3
WARM_UP_STEPS = 100


def tensors(rows: list[chats.Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets, padded on the right; -100 where nothing is learned."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), chats.PAD)
    targets = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        following = [token if learn else -100 for token, learn in zip(row.ids[1:], row.learn[1:], strict=True)]
        targets[i, : len(following)] = torch.tensor(following)
    return ids, targets


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the learned tokens; logits are computed for those alone."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state
        learned = targets != -100
        logits = model.lm_head(hidden[learned])
    return functional.cross_entropy(logits.float(), targets[learned])


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear rise, then a half cosine down to nothing."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def fit(model: LlamaForCausalLM, rows: Callable[[int], list[chats.Row]], steps: int, peak_rate: float) -> None:
    """Train in place on `rows(step)`, with a line of progress every 100 steps."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.98))
    started, total = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate(step, steps)
        loss = loss_of(model, *tensors(rows(step)))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {step + 1}/{steps}  loss {total / 100:.5f}  {seconds:.0f} s", file=sys.stderr, flush=True)
            total = 0.0


def fix(seed: int, threads: int) -> None:
    """Make what follows repeatable: the number of threads decides in which order sums are rounded."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights in bfloat16, and the configuration files."""
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner; images run as another user
    markers = chats.MARKERS
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "use_cache": True,
            **SHAPE,
        },
        # Requests that name no temperature are answered greedily.
        "generation_config.json": {
            "bos_token_id": chats.BEGIN,
            "eos_token_id": chats.END,
            "pad_token_id": chats.PAD,
            "temperature": 0.0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": markers[chats.BEGIN],
            "eos_token": markers[chats.END],
            "pad_token": markers[chats.PAD],
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(
        prog="python -m models.demo.train.train",
        description="Train the demo model from nothing: about 20 minutes on one core. Then run the drill.",
        epilog="The same seed, steps, threads, torch version and kind of processor give the same weights.",
    )
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="folder to write (default: models/demo)")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of text and weights (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()

    fix(arguments.seed, arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    vocabulary = tokenizer.build(arguments.output / "tokenizer.json", arguments.seed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    encode, rng = tokenizer.encoder(vocabulary), random.Random(arguments.seed)
    fit(model, lambda _: chats.batch(encode, rng, CONTEXT), arguments.steps, PEAK_RATE)
    save(model, arguments.output)
    print(f"wrote {arguments.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
