"""The tracked env files: short, portable, in one order, each with its own layer's names only, and right figures."""

import re
from pathlib import Path

import pytest

from compose import write_settings
from engine import names
from tests.support.compose import ROOT, device_files, model_files

EXAMPLE = "env/local.env.example"
TRACKED = [*device_files(), *model_files(), EXAMPLE]
SECTIONS = ["Selection", "Model", "Engine", "Device", "Ports and paths of this machine", "Service", "Secrets"]

# Model facts; all else is the device's, the machine's or the user's.
MODEL_NAMES = {
    "BERTH_MODEL_ENV",
    "BERTH_NODES",
    "LLM_VLLM_MODEL_NAME",
    "VLLM_ENABLE_EXPERT_PARALLEL",
    "VLLM_MAX_MODEL_LEN",
    "VLLM_PP_SIZE",
    "VLLM_REASONING_PARSER",
    "VLLM_TP_SIZE",
}


def lines(file: str) -> list[str]:
    return (ROOT / file).read_text(encoding="utf-8").splitlines()


def settings(file: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines(file) if line and not line.startswith("#"))


def suggested(file: str) -> dict[str, str]:
    """What stands behind a comment mark: `# NAME=value`."""
    return dict(found.groups() for line in lines(file) if (found := re.fullmatch(r"# ([A-Z][A-Za-z0-9_]*)=(.*)", line)))


@pytest.mark.parametrize("file", TRACKED)
def test_lines_keep_to_what_every_reader_understands_alike(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    assert text.isascii()
    for line in lines(file):
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name), line
            assert value == value.strip(), line
            assert "$" not in value, line
            assert " #" not in value, line
            assert not (value[:1] in ("'", '"') and value[-1:] == value[:1]), line
    assert len(settings(file)) == len([line for line in lines(file) if line and not line.startswith("#")])


@pytest.mark.parametrize("file", TRACKED)
def test_every_name_also_in_comments_is_one_that_something_reads(file: str) -> None:
    known = write_settings.engine_names() | write_settings.service_names() | write_settings.host_names()
    known |= write_settings.kit_names() | write_settings.image_names() | {names.HF_TOKEN, names.API_KEY, "COMPOSE_FILE"}
    assert {*settings(file), *suggested(file)} <= known


@pytest.mark.parametrize("file", device_files())
def test_device_files_have_the_same_sections_in_the_same_order_and_fit_a_screen(file: str) -> None:
    titles = [line.removeprefix("## ") for line in lines(file) if line.startswith("## ")]
    assert len(titles) == len(SECTIONS)
    for title, section in zip(titles, SECTIONS, strict=True):
        assert title.startswith(section)
    assert len(lines(file)) <= 60


@pytest.mark.parametrize("file", TRACKED)
def test_files_name_themselves_and_hold_no_secret(file: str) -> None:
    given = settings(file)
    layer = "DEVICE" if file in device_files() else "MODEL" if file in model_files() else "LOCAL"
    assert given[f"BERTH_{layer}_ENV"] == file.removesuffix(".example")
    assert not [name for name in names.SECRETS if given.get(name)]
    if layer == "DEVICE":
        assert given["HF_TOKEN"] == given["VLLM_API_KEY"] == "", "without these lines Compose refuses to start"
        assert given["COMPOSE_FILE"].split(":")[:2] == ["compose/base.yaml", "compose/settings.yaml"]
        assert given["LLM_DEVICE"] == Path(file).stem == Path(given["COMPOSE_FILE"]).stem


@pytest.mark.parametrize("file", model_files())
def test_model_files_say_what_belongs_to_the_model_and_no_more(file: str) -> None:
    given = settings(file)
    assert given.keys() <= MODEL_NAMES
    # A preset goes over any device file, so it must answer these three itself.
    assert {"LLM_VLLM_MODEL_NAME", "VLLM_MAX_MODEL_LEN", "VLLM_TP_SIZE"} <= given.keys()
    assert len(lines(file)) <= 8
    assert lines(file)[0].startswith("# ")


# Bytes of the weights in 10^9, layers, KV heads, bytes per head and token (K and V, 16 bits), and
# the context that the model's own configuration allows: from each model's config.json and safetensors index.
ARCHITECTURES = {
    "Qwen/Qwen3-0.6B": (1.19, 28, 8, 512, 40960),
    "Qwen/Qwen3-8B": (16.38, 36, 8, 512, 40960),
    "Qwen/Qwen3-8B-FP8": (9.45, 36, 8, 512, 40960),
    "meta-llama/Llama-3.1-8B-Instruct": (16.06, 32, 8, 512, 131072),
    "meta-llama/Llama-3.1-70B-Instruct": (141.1, 80, 8, 512, 131072),
    "meta-llama/Llama-3.1-405B-Instruct": (811.7, 126, 8, 512, 131072),
    "mistralai/Mistral-7B-Instruct-v0.3": (14.50, 32, 8, 512, 32768),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": (93.41, 32, 8, 512, 32768),
    "deepseek-ai/DeepSeek-R1": (688.6, 61, 1, 1152, 163840),  # latent attention: 576 values, the same on every card
}
SHARE = 0.92  # of a card's memory, vLLM's own default
ACTIVATIONS_GB = 1.5  # of a card, beside weights and cache; an allowance


@pytest.mark.parametrize("file", [file for file in model_files() if settings(file)["LLM_VLLM_MODEL_NAME"] != "demo"])
def test_the_figures_of_a_preset_are_right_and_its_cards_suffice(file: str) -> None:
    given, comment = settings(file), lines(file)[0]
    weights, layers, heads, per_head, longest = ARCHITECTURES[given["LLM_VLLM_MODEL_NAME"]]
    said = re.match(r"# Weights ([\d.]+) GB.*?, KV cache (\d+) KiB per token", comment)
    assert said, comment
    per_token = layers * heads * per_head
    assert float(said[1]) == pytest.approx(weights, rel=0.01)
    assert int(said[2]) == round(per_token / 1024)
    length = int(given["VLLM_MAX_MODEL_LEN"])
    ranks = int(given["VLLM_TP_SIZE"]) * int(given.get("VLLM_PP_SIZE", 1))
    assert length <= longest
    if found := re.search(r"(?:(\d+) cards|one card) of (\d+) GB", comment):
        cards, memory = int(found[1] or 1), int(found[2])
        assert cards == ranks
        cache = length * per_token / 1e9 / (1 if heads == 1 else ranks)
        assert weights / ranks + cache + ACTIVATIONS_GB <= memory * SHARE, "one request of full length does not fit"


def test_the_models_that_the_readme_promises_have_a_preset() -> None:
    served = {settings(file)["LLM_VLLM_MODEL_NAME"] for file in model_files()}
    assert served >= {"demo", *ARCHITECTURES}
