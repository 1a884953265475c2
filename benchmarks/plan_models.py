"""Small made configurations, one for each way to keep a KV cache, with what vLLM is told beside them."""

from typing import Any

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "head_dim": 64,
    "num_hidden_layers": 8,
    "sliding_window": 512,
    "query_pre_attn_scalar": 64,
    "rope_local_base_freq": 10000,
    "hidden_activation": "gelu_pytorch_tanh",
}
_LATENT = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 64,
    "norm_topk_prob": False,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "routed_scaling_factor": 1.0,
}
_DELTA = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "head_dim": 64,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
}

_MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 1024}
_MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
_LISTED = {"num_hidden_layers": 12, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2}

# Name: the configuration, and flags of vLLM by their Python names.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grouped-query": (_LLAMA, {}),
    "multi-head": ({**_LLAMA, "num_key_value_heads": 4, "num_hidden_layers": 5}, {}),
    "one key head": ({**_LLAMA, "num_key_value_heads": 1, "num_hidden_layers": 7, "head_dim": 128}, {}),
    "computed in 32 bits": (_LLAMA, {"dtype": "float32"}),
    "sliding window": ({**_LLAMA, **_MISTRAL}, {}),
    "windows and full": ({**_LLAMA, **_GEMMA3, **_LISTED}, {}),
    "a pattern, unlisted": ({**_LLAMA, **_GEMMA3, "sliding_window_pattern": 2}, {}),
    "experts": ({**_LLAMA, **_MIXTRAL}, {}),
    "shorter, other blocks": (_LLAMA, {"max_model_len": 1000, "block_size": 64}),
    "latent": ({**_LLAMA, **_LATENT}, {}),
    "linear and full": ({**_LLAMA, **_DELTA}, {}),
    "8-bit cache": (_LLAMA, {"kv_cache_dtype": "fp8"}),
}
