"""What quantizing costs and saves: `.berth/test/bin/python benchmarks/quantize.py [--json FILE] [SCHEME…]`.

Quantizes the demo model and a made Llama of four layers (random weights, the worst case: its next tokens are nearly
ties), serves the originals and the results by real vLLM on this CPU, and prints for each

  size         bytes of the weights, as a share of the original's
  same token   of the tokens of the original's greedy answers, those that the result, given all before, finds likeliest
  same answer  of all greedy answers, those that are the original's to the last token

Needs .berth/engine-cpu and .berth/quantize (`scripts/berth quantize` makes it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.demo.train import text  # noqa: E402
from tests.support.waiting import free_port, wait_until  # noqa: E402

ENGINE = ROOT / ".berth" / "engine-cpu" / "bin" / "python"
QUANTIZE = ROOT / ".berth" / "quantize" / "bin" / "python"
TOKENS = 48
_MAKE = """
import sys, torch, transformers
torch.manual_seed(1)
config = transformers.LlamaConfig(vocab_size=1792, hidden_size=512, intermediate_size=1408, num_hidden_layers=4,
    num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
    pad_token_id=0, initializer_range=0.05)
transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


def made_llama(folder: Path) -> Path:
    """A Llama of four layers with random weights and the demo model's words."""
    subprocess.run([QUANTIZE, "-c", _MAKE, folder], check=True, capture_output=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((ROOT / "models" / "demo" / name).read_bytes())
    return folder


def calibration_set(file: Path, questions: list[tuple[str, str]]) -> Path:
    """Chats as JSONL."""
    rows = ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in questions)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def quantized(source: Path, scheme: str, folder: Path, data: Path) -> Path:
    """The result of one scheme."""
    words: list[str | Path] = [
        QUANTIZE,
        "-P",
        "-m",
        "engine.quantize.compress",
        source,
        "--scheme",
        scheme,
        "--to",
        folder,
    ]
    done = subprocess.run(
        [*words, "--data", data, "--samples", "128", "--length", "256"], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return folder


@contextmanager
def served(model: Path) -> Iterator[httpx.Client]:
    """The model, served by vLLM through the launcher."""
    port = free_port()
    environ = {
        **os.environ,
        "PATH": f"{ENGINE.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "LLM_DEVICE": "cpu",
        "LLM_VLLM_MODEL_NAME": str(model),
        "LLM_VLLM_PORT": str(port),
        "VLLM_SERVED_MODEL_NAME": "m",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENFORCE_EAGER": "true",
        "VLLM_GENERATION_CONFIG": "vllm",
    }
    with (
        tempfile.TemporaryFile("w+") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client,
    ):
        engine = subprocess.Popen([ENGINE, "-P", "-m", "engine.serve"], env=environ, stdout=log, stderr=log)

        def ready() -> bool:
            if engine.poll() is not None:
                log.seek(0)
                raise RuntimeError(log.read()[-3000:])
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(ready, 600, f"{model}", interval=0.5)
            yield client
        finally:
            engine.terminate()
            engine.wait(90)


Asked = list[tuple[list[int], list[int]]]


def answers(client: httpx.Client, questions: list[str]) -> Asked:
    """Token ids of each prompt and of its greedy answer."""
    found = []
    for question in questions:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0}
        reply = client.post("/v1/chat/completions", json={"model": "m", **body, "return_token_ids": True}).json()
        found.append((reply["prompt_token_ids"], reply["choices"][0]["token_ids"]))
    return found


def same_tokens(client: httpx.Client, asked: Asked) -> tuple[int, int]:
    """How many tokens of the given answers are the likeliest ones here, and how many there are."""
    same = total = 0
    for prompt, answer in asked:
        body = {"model": "m", "prompt": [*prompt, *answer], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        told = client.post("/v1/completions", json=body).json()["choices"][0]["prompt_logprobs"][-len(answer) :]
        same += sum(each[str(token)]["rank"] == 1 for token, each in zip(answer, told, strict=True))
        total += len(answer)
    return same, total


def size(folder: Path) -> int:
    """Bytes of the weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def compare(name: str, source: Path, schemes: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    """One row for each scheme."""
    data = text.load()
    pairs = [(question, entry.answer) for entry in data.known for question in entry.ask]
    calibration = calibration_set(scratch / "calibration.jsonl", pairs[::2])
    questions = [question for question, _ in pairs[1::5]]  # none of them is a calibration sample
    questions = [question for question in questions if question not in {q for q, _ in pairs[::2]}]
    with served(source) as client:
        original = answers(client, questions)
        floor = same_tokens(client, original)
    whole = size(source)
    yield {"model": name, "scheme": "none", "bytes": whole, "share": 1.0, "same_token": floor[0] / floor[1]}
    for scheme in schemes:
        folder = quantized(source, scheme, scratch / f"{name}-{scheme}", calibration)
        row = {"model": name, "scheme": scheme, "bytes": size(folder), "share": size(folder) / whole}
        try:
            with served(folder) as client:
                same, total = same_tokens(client, original)
                now = answers(client, questions)
        except RuntimeError as error:
            reason = [line for line in str(error).splitlines() if "rror" in line]
            yield {**row, "not_served": reason[-1][-200:] if reason else "vLLM ended"}
            continue
        whole_answers = sum(a == b for (_, a), (_, b) in zip(original, now, strict=True)) / len(now)
        yield {**row, "tokens": total, "same_token": same / total, "answers": len(now), "same_answer": whole_answers}


def main() -> None:
    """Print a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemes", nargs="*", default=["fp8-dynamic", "w8a8", "w4a16"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        for name, source in (("demo", ROOT / "models" / "demo"), ("made", made_llama(scratch / "made"))):
            for row in compare(name, source, given.schemes, scratch):
                rows.append(row)
                print(json.dumps(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
