"""Phases from the lines that vLLM 0.32, the gaudi plugin and the launcher really write."""

import pytest

from engine.phases import COMPILING, LOADING, STARTING, WARMING, Phase, phase_of


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("berth: --port 8008 (LLM_VLLM_PORT is not set)", Phase(STARTING)),
        ("(APIServer pid=2) INFO 11-21 06:35:01 [api_utils.py:286] non-default args: {'port': 1}", Phase(STARTING)),
        ("(Worker pid=4) INFO 11-21 06:35:36 [cpu_model_runner.py:68] Starting to load model /m...", Phase(LOADING)),
        (
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 467.85it/s]",
            Phase(LOADING, 0.5, "1/2 files"),
        ),
        (
            "(Worker pid=4) INFO 11-21 06:35:36 [cpu_model_runner.py:87] Warming up model for the compilation...",
            Phase(COMPILING),
        ),
        ("(Worker pid=4) INFO 11-21 06:36:01 [cpu_model_runner.py:91] Warming up done.", Phase(WARMING)),
        (
            "INFO 09-05 12:17:56 habana_model_runner.py:940] [Warmup][Decode][512/1024] batch_size:2 seq_len:16",
            Phase(WARMING, 0.5, "512/1024 shapes"),
        ),
        (
            "Capturing CUDA graphs (decode, FULL):  25%|██▌  | 2/8 [00:01<00:03]",
            Phase(WARMING, 0.25, "2/8 CUDA graphs"),
        ),
        ("INFO:     Application startup complete.", Phase(WARMING)),
        ("(EngineCore pid=2519) INFO 11-21 06:35:36 [utils.py:347] Using LBHNC KV cache layout.", None),
        ("[Warmup][Prompt][0/0]", Phase(WARMING, None, "0/0 shapes")),
    ],
)
def test_a_line_announces_its_phase(line: str, phase: Phase | None) -> None:
    assert phase_of(line) == phase
