"""What llm-compressor is told. It is imported when it is used: that takes ten seconds, and nobody else has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.messages import say
from engine.quantize import samples
from engine.quantize.schemes import Scheme

# Small layers that decide much, or that vLLM keeps at full precision: the head, a mixture's router, what sees images.
_IGNORE = [
    "lm_head",
    "re:.*embed_tokens.*",
    "re:.*mlp[.]gate$",
    "re:.*router.*",
    "re:.*(visual|vision|image)_?.*",
    "re:.*multi_modal_projector.*",
]


def without_samples(source: Path, to: Path, scheme: Scheme) -> None:
    """Quantize the weights of `source` file by file into `to`."""
    from llmcompressor import model_free_ptq

    say("quantizing the weights, file by file")
    model_free_ptq(source, to, scheme=scheme.preset, ignore=_IGNORE)


def by_samples(source: Path, to: Path, layers: Path, scheme: Scheme, rows: Sequence[samples.Row], length: int) -> None:
    """Quantize a text model layer by layer; `layers` keeps what is done, for a run that goes on."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from engine.quantize.layers import Resuming

    say(f"loading the model; {len(rows)} samples")
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(source)
    recipe: list[Any] = [SmoothQuantModifier(smoothing_strength=0.8)] if scheme.smooth else []
    ignore = [each for each in _IGNORE if "embed" not in each]  # GPTQ takes linear layers alone
    number = model.config.get_text_config().num_hidden_layers
    recipe.append(Resuming.of(layers, number, targets="Linear", scheme=scheme.preset, ignore=ignore))
    tokens = _tokens(rows, tokenizer, length)
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=tokens,
        recipe=recipe,
        max_seq_length=length,
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
    )
    # The original's own is copied; transformers refuses to write many that it reads.
    model.generation_config = GenerationConfig()
    model.save_pretrained(to, save_compressed=True)


def _tokens(rows: Sequence[samples.Row], tokenizer: Any, length: int) -> Any:
    from datasets import Dataset

    def one(row: samples.Row) -> dict[str, Any]:
        said = samples.turns(row)
        if isinstance(said, list):
            if tokenizer.chat_template is None:
                said = "\n".join(turn["content"] for turn in said)
            else:
                said = tokenizer.apply_chat_template(said, tokenize=False)
                return dict(tokenizer(said, add_special_tokens=False, truncation=True, max_length=length))
        return dict(tokenizer(said, truncation=True, max_length=length))

    return Dataset.from_list([one(row) for row in rows])
