"""Small causal and encoder-decoder networks of transformers, to be cut and to generate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["NETWORKS", "example"]

_CAUSAL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = _CAUSAL | {"num_key_value_heads": 2}
_SEQUENCES: dict[str, Any] = {
    "vocab_size": 61, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
_EXPERTS = _GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", _GROUPED),
    "T5": ("T5ForConditionalGeneration", {
        "vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
        "eos_token_id": 1, "decoder_start_token_id": 0}),
    "GPT2": ("GPT2LMHeadModel", {
        "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
        "eos_token_id": 2}),
    "Mixtral": ("MixtralForCausalLM", _GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Whisper": ("WhisperForConditionalGeneration", _SEQUENCES | {
        "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 40, "suppress_tokens": None,
        "begin_suppress_tokens": None}),
    "Mistral": ("MistralForCausalLM", _GROUPED | {"sliding_window": 8}),
    "Qwen3": ("Qwen3ForCausalLM", _GROUPED | {"head_dim": 10}),
    "Qwen3Moe": ("Qwen3MoeForCausalLM", _EXPERTS),
    "Gemma2": ("Gemma2ForCausalLM", _GROUPED | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "OPT": ("OPTForCausalLM", {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
        "max_position_embeddings": 64, "word_embed_proj_dim": 32, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2}),
    "GPTNeoX": ("GPTNeoXForCausalLM", _CAUSAL),
    "Phi3": ("Phi3ForCausalLM", _GROUPED),
    "Falcon": ("FalconForCausalLM", {
        "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_hidden_size": 48,
        "bos_token_id": 1, "eos_token_id": 2, "alibi": False}),
    "Mamba": ("MambaForCausalLM", {
        "vocab_size": 61, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "time_step_rank": 4,
        "conv_kernel": 4}),
    "Bart": ("BartForConditionalGeneration", _SEQUENCES | {"max_position_embeddings": 64}),
    "Pegasus": ("PegasusForConditionalGeneration", _SEQUENCES | {"max_position_embeddings": 64}),
    "Marian": ("MarianMTModel", _SEQUENCES | {"max_position_embeddings": 64}),
    "StableLm": ("StableLmForCausalLM", _GROUPED),
    "Cohere": ("CohereForCausalLM", _GROUPED),
}  # fmt: skip


def example(name: str, **changes: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A network with random weights, in float64, and what it generates from; `changes` of its settings."""
    import transformers

    transformers.logging.set_verbosity_error()
    kind, settings = NETWORKS[name][0], NETWORKS[name][1] | changes
    cls: Callable[..., Any] = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = cls(cls.config_class(**settings)).eval()  # type: ignore[attr-defined]
        model = model if "num_experts_per_tok" in settings else model.double()  # grouped products are of floats
        for parameter in model.parameters():  # tokens that differ, not the most frequent one for ever
            if parameter.dim() > 1:
                parameter.data.mul_(6.0)
        ids = torch.randint(3, 61, (2, 6))
        features = torch.randn(2, 16, 40, dtype=torch.float64)
    if "input_features" in str(getattr(model, "main_input_name", "")):
        return model, {"input_features": features, "decoder_input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):  # type: ignore[union-attr]
        return model, {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    return model, {"input_ids": ids}
