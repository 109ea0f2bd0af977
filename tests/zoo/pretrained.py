"""Networks of the transformers library, built small from its own classes and configurations; nothing is downloaded."""

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, nn

from tests.zoo.entry import Entry, Example

Draw = Callable[[Generator], torch.Tensor]
WIDTH = 24


class _Double:
    """The module `torch`, but single precision means double.

    Some of these networks compute norms and softmax in single precision whatever their weights are in; the laws
    compare to ten digits.
    """

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def network(head: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of the class `head`, with the settings `config` of its own kind of configuration."""
    import transformers  # late: it takes seconds, and other tests of the zoo need none of it

    build = getattr(transformers, head)
    vars(sys.modules[build.__module__])["torch"] = _Double()
    return build(build.config_class(**config))


class Only(nn.Module):
    """A network of which one output is wanted: the others, its hidden states too, need not keep their sizes."""

    def __init__(self, network: nn.Module, output: str) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.network(**inputs)[self.output]


def words(length: int, vocabulary: int = 50) -> Draw:
    """Two sentences of token numbers."""
    return lambda generator: torch.randint(3, vocabulary, (2, length), generator=generator)


def values(*shape: int) -> Draw:
    """Two examples of normal values."""
    return lambda generator: torch.randn((2, *shape), generator=generator, dtype=torch.float64)


def mask(length: int) -> Draw:
    """The second of two sentences is two tokens shorter."""
    return lambda _: (torch.arange(length) < torch.tensor([[length], [length - 2]])).long()


def entry(
    name: str,
    head: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Draw],
    free: tuple[int, ...],
    *,
    fixed: Mapping[int, str] = MappingProxyType({}),
    statistics: tuple[int, ...] = (WIDTH,),
    cnn: bool = False,
    output: str | None = None,
) -> Entry:
    """An entry whose inputs are given by name, and whose trunk, of width 24 if nothing else is said, is normalised.

    All its outputs are wanted, if none is named.
    """

    def example(generator: Generator) -> Example:
        return (), {key: draw(generator) for key, draw in inputs.items()}

    def build() -> nn.Module:
        model = network(head, config).double().eval()
        with torch.no_grad():
            model(**example(torch.Generator())[1])  # some hang hooks on themselves when they are first called
        return model if output is None else Only(model, output)

    return Entry(f"hf_{name}", "transformers", build, example, free, fixed, statistics=statistics, cnn=cnn)


BERT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "num_labels": 3,
}
DISTILBERT = {
    "vocab_size": 50,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": 20,
    "num_labels": 3,
}
GPT2 = {"vocab_size": 50, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_inner": 40, "use_cache": False}
OPT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 20,
    "word_embed_proj_dim": 18,
    "use_cache": False,
}
LLAMA = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 10,
    "intermediate_size": 40,
    "use_cache": False,
}
GROUPED = LLAMA | {"num_key_value_heads": 3}
EXPERTS = GROUPED | {"num_local_experts": 7, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
NEOX = {
    "vocab_size": 50,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 36,
    "rotary_pct": 0.5,
    "use_cache": False,
}
PHI = NEOX | {"partial_rotary_factor": 0.5, "num_key_value_heads": 5}
T5 = {
    "vocab_size": 50,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 5,
    "relative_attention_num_buckets": 8,
    "use_cache": False,
}
WHISPER = {
    "vocab_size": 60,
    "num_mel_bins": 8,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 36,
    "max_source_positions": 10,
    "max_target_positions": 12,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
WAV2VEC2 = {
    "vocab_size": 11,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "conv_dim": (8, 14),
    "conv_kernel": (4, 3),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 3,
}
MAMBA = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "state_size": 5,
    "expand": 2,
    "time_step_rank": 7,
    "conv_kernel": 3,
    "use_cache": False,
}
VIT = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_labels": 3,
}
SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 12,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 3,
}
CONVNEXT = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1], "num_labels": 5}
SEGFORMER = {
    "hidden_sizes": [8, 12, 20, 28],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 5, 4],
    "decoder_hidden_size": 18,
    "num_labels": 5,
}
MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 20, 24],
    "neck_hidden_sizes": [8, 12, 18, 22, 26, 28, 64],
    "num_attention_heads": 4,
    "num_labels": 5,
}
RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [16, 24],
    "depths": [2, 1],
    "layer_type": "bottleneck",
    "num_labels": 5,
}
MOBILENET = {"image_size": 32, "depth_multiplier": 0.25, "min_depth": 4, "num_labels": 5}
CLIP = {
    "text_config": {
        "vocab_size": 50,
        "hidden_size": 24,
        "intermediate_size": 72,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 12,
        "eos_token_id": 49,
        "bos_token_id": 48,
        "pad_token_id": 0,
    },
    "vision_config": {
        "hidden_size": 20,
        "intermediate_size": 66,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "image_size": 16,
        "patch_size": 8,
    },
    "projection_dim": 14,
}
PAIRS: dict[str, Draw] = {"input_ids": words(7), "pixel_values": values(3, 16, 16)}
DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [14, 18],
        "depths": [1, 1],
        "out_features": ["stage2"],
        "layer_type": "basic",
    },
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 36,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "num_queries": 7,
    "num_labels": 5,
}
UPERNET = {
    "backbone_config": {
        "model_type": "convnext",
        "hidden_sizes": [8, 12, 16, 20],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "hidden_size": 18,
    "use_auxiliary_head": False,
    "pool_scales": [1, 2],
    "num_labels": 5,
}

SEEN = {"attn_implementation": "eager", "output_attentions": True}
SEEN_BERT, SEEN_LLAMA = BERT | SEEN, LLAMA | SEEN
EQUAL = VIT | {"hidden_size": 16, "intermediate_size": 16}
SENTENCE = {"input_ids": words(6)}
BOTH_SENTENCES = {"input_ids": words(6), "decoder_input_ids": words(4)}
MASKED = {"input_ids": words(6), "attention_mask": mask(6)}
SOUND = {"input_features": values(8, 20), "decoder_input_ids": words(5)}
PICTURE = {"pixel_values": values(3, 16, 16)}
LARGER = {"pixel_values": values(3, 32, 32)}
LARGEST = {"pixel_values": values(3, 64, 64)}

BLOCKS = 2 * (4, 6, 40)  # heads, head size, hidden units
GROUPED_BLOCKS = 2 * (3, 40)  # heads of keys, hidden units
STAGES = (8, 12, 16, 20)
EXPANDED = (*STAGES, 32, 48, 64, 80)  # stages, and the hidden units of their inverted bottlenecks
RESNET_AXES = (8, 16, 4, 4, 4, 4, 24, 6, 6)
SEGFORMER_AXES = (8, 8, 32, 12, 2, 6, 48, 20, 5, 4, 80, 28, 4, 7, 112, 18, 18, 18, 18, 18)
MOBILEVIT_AXES = (16, *2 * (4, 4, 32), 20, *4 * (4, 5, 40), 24, *3 * (4, 6, 48))
DETR_AXES = (8, 14, 14, 18, 18, 4, 6, 40, *2 * (3, 8, 3, 8, 36))
SWIN_AXES = (12, 2, 6, 48, 2, 6, 48, 24, 4, 6, 96, 4, 6, 96)

# The first runs by default.
ENTRIES = (
    entry("distilbert", "DistilBertForSequenceClassification", DISTILBERT, MASKED, (24, 24, *BLOCKS)),
    entry("resnet", "ResNetForImageClassification", RESNET, LARGER, RESNET_AXES, statistics=(), cnn=True),
    entry("llama", "LlamaForCausalLM", LLAMA, SENTENCE, (24, 5, 6, 40, 6, 40)),
    entry("bert", "BertForSequenceClassification", BERT, MASKED, (24, 24, *BLOCKS)),
    entry("bert_eager", "BertForTokenClassification", SEEN_BERT, SENTENCE, (24, 6, 40, 6, 40), fixed={4: "output"}),
    entry("opt", "OPTForCausalLM", OPT, SENTENCE, (18, 24, *BLOCKS)),
    entry("roberta", "RobertaForTokenClassification", BERT, SENTENCE, (24, *BLOCKS)),
    entry("gpt2", "GPT2LMHeadModel", GPT2, SENTENCE, (24, *BLOCKS)),
    entry("gpt_neox", "GPTNeoXForCausalLM", NEOX, SENTENCE, (40, 2, 5, 4, 36, 5, 4, 36), statistics=(40,)),
    entry("llama_eager", "LlamaForCausalLM", SEEN_LLAMA, MASKED, (24, 5, 40, 40), fixed={6: "output"}),
    entry("llama_tied", "LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True}, SENTENCE, (24, 5, 6, 40, 6, 40)),
    entry("convnext", "ConvNextForImageClassification", CONVNEXT, LARGEST, (*EXPANDED, 64), statistics=STAGES),
    entry("qwen2", "Qwen2ForCausalLM", GROUPED, SENTENCE, (24, 5, *GROUPED_BLOCKS)),
    entry("mixtral", "MixtralForCausalLM", EXPERTS, SENTENCE, (24, 5, *GROUPED_BLOCKS), fixed={7: "topk"}),
    entry("vit", "ViTForImageClassification", VIT, PICTURE, (24, *BLOCKS)),
    entry("phi", "PhiForCausalLM", PHI, SENTENCE, (40, 2, 5, 4, 36, 5, 4, 36), statistics=(40,)),
    entry("t5", "T5ForConditionalGeneration", T5, BOTH_SENTENCES, (5, 5, 5, *6 * (6,), *4 * (40,))),
    entry(
        "wav2vec2", "Wav2Vec2ForCTC", WAV2VEC2, {"input_values": values(100)}, (8, 14, *BLOCKS), statistics=(14, 3, 8)
    ),
    entry("whisper", "WhisperForConditionalGeneration", WHISPER, SOUND, (24, 24, *BLOCKS, *2 * (3, 8, 3, 8, 36))),
    entry("beit", "BeitForImageClassification", VIT, PICTURE, (24, *BLOCKS)),
    entry("deit_equal", "DeiTForImageClassification", EQUAL, PICTURE, (16, 16, 16, 4, 4, 4, 4), statistics=(16,)),
    entry("swin", "SwinForImageClassification", SWIN, LARGER, SWIN_AXES, fixed={49: "position"}, statistics=(12, 24)),
    entry("upernet", "UperNetForSemanticSegmentation", UPERNET, LARGEST, (*EXPANDED, *7 * (18,)), statistics=STAGES),
    entry("mamba", "MambaForCausalLM", MAMBA, SENTENCE, (24, 48, 5, 7, 48, 5, 7)),
    entry(
        "segformer", "SegformerForSemanticSegmentation", SEGFORMER, LARGEST, SEGFORMER_AXES, statistics=(8, 12, 20, 28)
    ),
    entry("mobilevit", "MobileViTForImageClassification", MOBILEVIT, LARGEST, MOBILEVIT_AXES, statistics=(16, 20, 24)),
    entry(
        "mobilenet_v2",
        "MobileNetV2ForImageClassification",
        MOBILENET,
        LARGER,
        (8, 16, 24, 40, 80, 1280),
        statistics=(),
        cnn=True,
    ),
    entry(
        "clip",
        "CLIPModel",
        CLIP,
        PAIRS,
        (24, 20, 14, *2 * (4, 6, 72), *2 * (5, 4, 66)),
        statistics=(14, 20, 24),
        output="logits_per_image",
    ),
    entry("detr", "DetrForObjectDetection", DETR, LARGER, DETR_AXES),
)
