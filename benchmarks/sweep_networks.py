"""Networks of other people's libraries for `sweep.py`: chosen before anything was measured, and kept so.

Each entry builds a network with random weights and says how it is called. Where a library lets one choose, networks
have few layers and small pictures, so that all can be swept in hours; what they are made of is theirs. Needs timm,
torchvision, diffusers, segmentation-models-pytorch, MONAI, ultralytics, vit-pytorch, denoising-diffusion-pytorch,
x-transformers and transformers, which the package does not depend on.
"""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "load"]

_KERNELS = (
    *("qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "qroi_pool", "_roi_pool_backward"),
    *("ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward"),
    *("deform_conv2d", "_deform_conv2d_backward"),
)
_DECLARED: list[torch.library.Library] = []

Example = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
NETWORKS: dict[str, Callable[[], Example]] = {}


def pixels(*shape: int) -> Tensor:
    """Random pictures, sounds or latents."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def words(length: int = 12, vocabulary: int = 90, batch: int = 2) -> Tensor:
    """Random tokens; none of them is one of the first few, which networks take for padding and the like."""
    return torch.randint(5, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))


def named(path: str) -> Any:
    """What `package.module:name` says."""
    without_kernels()
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def without_kernels() -> None:
    """Make torchvision importable where its compiled operators are not: names are enough to define its networks."""
    if not _DECLARED:
        library = torch.library.Library("torchvision", "DEF")
        _DECLARED.append(library)
        for name in _KERNELS:
            library.define(f"{name}(Tensor _) -> Tensor")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CPU")
        importlib.import_module("torchvision.extension")._has_ops = lambda: True


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The places of the boxes that overlap no better one by more than a share of their union."""
    order = scores.argsort(descending=True, stable=True).tolist()
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    close = shared / (area[:, None] + area - shared) > threshold
    kept: list[int] = []
    for one in order:
        if not any(close[one, other] for other in kept):
            kept.append(one)
    return torch.tensor(kept, dtype=torch.long)


def load() -> None:
    """Import the libraries, those that are there."""
    without_kernels()
    for library in (
        *("torchvision", "timm", "transformers", "diffusers.models", "monai.networks.nets", "vit_pytorch"),
        *("segmentation_models_pytorch", "ultralytics.nn.tasks", "denoising_diffusion_pytorch", "x_transformers"),
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)


def put(library: str, name: str, build: Callable[[], nn.Module], *args: Any, **kwargs: Any) -> None:
    """One entry; inputs are made when it is built."""

    def example() -> Example:
        made = [value() if callable(value) else value for value in args]
        return build(), tuple(made), {key: value() if callable(value) else value for key, value in kwargs.items()}

    NETWORKS[f"{library}/{name}"] = example


def picture(size: int, batch: int = 2, channels: int = 3) -> Callable[[], Tensor]:
    """Square pictures."""
    return lambda: pixels(batch, channels, size, size)


def tensor(*shape: int) -> Callable[[], Tensor]:
    """A random tensor."""
    return lambda: pixels(*shape)


# timm: (name, size of the picture, arguments)
_TIMM: list[tuple[str, int, dict[str, Any]]] = [
    ("cait_xxs24_224", 64, {"depth": 4, "img_size": 64}),
    ("xcit_tiny_12_p16_224", 64, {"depth": 4, "img_size": 64}),
    ("crossvit_tiny_240", 240, {}),
    ("convit_tiny", 64, {"depth": 4, "img_size": 64}),
    ("swinv2_cr_tiny_ns_224", 224, {}),
    ("swin_tiny_patch4_window7_224", 224, {}),
    ("shvit_s1", 128, {}),
    ("resnetv2_50x1_bit", 64, {}),
    ("dm_nfnet_f0", 64, {}),
    ("resnest14d", 64, {}),
    ("edgenext_xx_small", 96, {}),
    ("coat_lite_tiny", 96, {"img_size": 96}),
    ("coatnet_nano_rw_224", 224, {}),
    ("maxvit_tiny_tf_224", 224, {}),
    ("mobilenetv4_conv_small", 64, {}),
    ("mobilevit_xxs", 64, {}),
    ("mobilevitv2_050", 64, {}),
    ("mobileone_s0", 64, {}),
    ("fastvit_t8", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("efficientformerv2_s0", 224, {}),
    ("efficientvit_b0", 64, {}),
    ("levit_128s", 224, {}),
    ("pit_ti_224", 224, {}),
    ("eva02_tiny_patch14_224", 56, {"depth": 3, "img_size": 56}),
    ("beit_base_patch16_224", 64, {"depth": 3, "img_size": 64, "embed_dim": 192, "num_heads": 3}),
    ("volo_d1_224", 224, {}),
    ("mvitv2_tiny", 64, {"img_size": 64}),
    ("pvt_v2_b0", 64, {}),
    ("davit_tiny", 64, {}),
    ("focalnet_tiny_srf", 64, {}),
    ("caformer_s18", 64, {}),
    ("convnextv2_atto", 64, {}),
    ("mixer_s32_224", 64, {"img_size": 64}),
    ("gmlp_ti16_224", 64, {"img_size": 64}),
    ("dpn48b", 64, {}),
    ("hrnet_w18_small", 64, {}),
    ("res2net50_14w_8s", 64, {}),
    ("skresnet18", 64, {}),
    ("regnety_002", 64, {}),
    ("ghostnetv2_100", 64, {}),
    ("hiera_tiny_224", 224, {}),
    ("tnt_s_legacy_patch16_224", 224, {"depth": 3}),
    ("halonet26t", 256, {}),
    ("lambda_resnet26t", 64, {}),
    ("nextvit_small", 64, {}),
    ("nest_tiny", 64, {"img_size": 64}),
    ("mambaout_femto", 64, {}),
]
for _name, _size, _given in _TIMM:
    put("timm", _name, lambda n=_name, g=_given: named("timm:create_model")(n, num_classes=10, **g), picture(_size))

# torchvision: (module and name, shape of the input, arguments)
_TORCHVISION: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("googlenet", (2, 3, 64, 64), {"init_weights": False, "aux_logits": True}),
    ("inception_v3", (2, 3, 128, 128), {"init_weights": False, "aux_logits": True}),
    ("shufflenet_v2_x0_5", (2, 3, 64, 64), {}),
    ("squeezenet1_1", (2, 3, 64, 64), {}),
    ("densenet121", (2, 3, 64, 64), {}),
    ("resnext50_32x4d", (2, 3, 64, 64), {}),
    ("vit_b_32", (2, 3, 224, 224), {}),
    ("swin_v2_t", (2, 3, 64, 64), {}),
    ("maxvit_t", (2, 3, 224, 224), {}),
    ("video:r2plus1d_18", (2, 3, 4, 32, 32), {}),
    ("video:s3d", (1, 3, 16, 224, 224), {}),
    ("video:mvit_v2_s", (1, 3, 16, 224, 224), {}),
    ("video:swin3d_t", (1, 3, 4, 64, 64), {}),
    ("segmentation:deeplabv3_mobilenet_v3_large", (2, 3, 64, 64), {"aux_loss": True, "weights_backbone": None}),
    ("segmentation:lraspp_mobilenet_v3_large", (2, 3, 64, 64), {"weights_backbone": None}),
    ("detection:retinanet_resnet50_fpn", (1, 3, 64, 64), {"weights_backbone": None}),
]
for _name, _shape, _given in _TORCHVISION:
    _module, _, _function = _name.rpartition(":")
    _path = f"torchvision.models{'.' * bool(_module)}{_module}:{_function}"
    put("torchvision", _function, lambda p=_path, g=_given: named(p)(weights=None, **g), tensor(*_shape))
put(
    "torchvision",
    "raft_small",
    lambda: named("torchvision.models.optical_flow:raft_small")(weights=None),
    picture(128, 1),
    picture(128, 1),
    num_flow_updates=2,
)

# ultralytics: the file that describes the network
_ULTRALYTICS = ["yolov5n", "yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov9t", "yolov10n", "yolo11n", "yolo12n"]
for _name in _ULTRALYTICS:
    _task = {"seg": "Segmentation", "pose": "Pose"}.get(_name.partition("-")[2], "Detection")
    put(
        "ultralytics",
        _name,
        lambda n=_name, t=_task: named(f"ultralytics.nn.tasks:{t}Model")(f"{n}.yaml", verbose=False),
        picture(64),
    )
put(
    "ultralytics",
    "rtdetr-l",
    lambda: named("ultralytics.nn.tasks:RTDETRDetectionModel")("rtdetr-l.yaml", verbose=False),
    picture(128),
)

# segmentation-models-pytorch: (name, encoder)
for _name, _encoder, _given in [
    ("Unet", "resnet18", {"decoder_attention_type": "scse"}),
    ("UnetPlusPlus", "resnet18", {}),
    ("MAnet", "resnet18", {}),
    ("PSPNet", "resnet18", {}),
    ("PAN", "mobilenet_v2", {}),
    ("DeepLabV3Plus", "efficientnet-b0", {}),
    ("Segformer", "mit_b0", {}),
    ("UPerNet", "resnet18", {}),
]:
    put(
        "smp",
        f"{_name}-{_encoder}",
        lambda n=_name, e=_encoder, g=_given: named(f"segmentation_models_pytorch:{n}")(
            e, encoder_weights=None, classes=3, **g
        ),
        picture(128),
    )

# MONAI: (name, arguments, shape of the input)
_MONAI: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    (
        "UNet",
        {
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "channels": (8, 16, 32),
            "strides": (2, 2),
            "num_res_units": 2,
        },
        (1, 1, 16, 16, 16),
    ),
    (
        "DynUNet",
        {
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "kernel_size": [3] * 4,
            "strides": [1, 2, 2, 2],
            "upsample_kernel_size": [2] * 3,
            "filters": [8, 16, 24, 32],
            "deep_supervision": True,
        },
        (1, 1, 32, 32, 32),
    ),
    ("SwinUNETR", {"in_channels": 1, "out_channels": 2, "feature_size": 12, "spatial_dims": 3}, (1, 1, 64, 64, 64)),
    (
        "UNETR",
        {
            "in_channels": 1,
            "out_channels": 2,
            "img_size": 32,
            "feature_size": 8,
            "hidden_size": 48,
            "mlp_dim": 96,
            "num_heads": 4,
        },
        (1, 1, 32, 32, 32),
    ),
    ("SegResNet", {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 2}, (1, 1, 16, 16, 16)),
    (
        "AttentionUnet",
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (8, 16, 32), "strides": (2, 2)},
        (2, 1, 32, 32),
    ),
    (
        "DiffusionModelUNet",
        {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "num_res_blocks": 1,
            "channels": (16, 32),
            "attention_levels": (False, True),
            "norm_num_groups": 8,
            "num_head_channels": 16,
        },
        (2, 1, 16, 16),
    ),
    (
        "VQVAE",
        {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "channels": (16, 32),
            "num_res_channels": (16, 32),
            "downsample_parameters": ((2, 4, 1, 1),) * 2,
            "upsample_parameters": ((2, 4, 1, 1, 0),) * 2,
            "num_embeddings": 16,
            "embedding_dim": 8,
        },
        (2, 1, 16, 16),
    ),
]
for _name, _given, _shape in _MONAI:
    _more = {"timesteps": lambda: torch.tensor([3, 7])} if _name == "DiffusionModelUNet" else {}
    put("monai", _name, lambda n=_name, g=_given: named(f"monai.networks.nets:{n}")(**g), tensor(*_shape), **_more)


# diffusers: (name, arguments, inputs by name)
_LATENT = tensor(2, 4, 16, 16)


def _step() -> Tensor:
    return torch.tensor([10, 500])


_DIFFUSERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "UNet2DModel",
        {
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "layers_per_block": 1,
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
        {"sample": _LATENT, "timestep": _step},
    ),
    (
        "UNet2DConditionModel",
        {
            "sample_size": 16,
            "layers_per_block": 1,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 24,
            "attention_head_dim": 8,
        },
        {"sample": _LATENT, "timestep": _step, "encoder_hidden_states": tensor(2, 7, 24)},
    ),
    (
        "UNetSpatioTemporalConditionModel",
        {
            "sample_size": 16,
            "in_channels": 8,
            "block_out_channels": (32, 64),
            "num_attention_heads": (2, 4),
            "cross_attention_dim": 32,
            "layers_per_block": 1,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        },
        {
            "sample": tensor(1, 2, 8, 16, 16),
            "timestep": lambda: torch.tensor(10),
            "encoder_hidden_states": tensor(1, 1, 32),
            "added_time_ids": tensor(1, 3),
        },
    ),
    (
        "AutoencoderKL",
        {
            "block_out_channels": (16, 32),
            "norm_num_groups": 8,
            "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
        },
        {"sample": picture(32)},
    ),
    (
        "AutoencoderTiny",
        {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4},
        {"sample": picture(32)},
    ),
    (
        "VQModel",
        {
            "block_out_channels": (16, 32),
            "norm_num_groups": 8,
            "latent_channels": 4,
            "num_vq_embeddings": 32,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
        },
        {"sample": picture(32)},
    ),
    (
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "in_channels": 4,
            "num_layers": 2,
            "sample_size": 16,
            "norm_num_groups": 8,
        },
        {"hidden_states": _LATENT, "timestep": _step, "class_labels": lambda: torch.tensor([1, 2])},
    ),
    (
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 2,
            "sample_size": 16,
            "cross_attention_dim": 32,
            "caption_channels": 24,
            "norm_num_groups": 8,
            "use_additional_conditions": False,
        },
        {
            "hidden_states": _LATENT,
            "encoder_hidden_states": tensor(2, 6, 24),
            "timestep": _step,
            "added_cond_kwargs": lambda: {"resolution": None, "aspect_ratio": None},
        },
    ),
    (
        "SD3Transformer2DModel",
        {
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "joint_attention_dim": 24,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 40,
            "pos_embed_max_size": 16,
        },
        {
            "hidden_states": _LATENT,
            "encoder_hidden_states": tensor(2, 6, 24),
            "pooled_projections": tensor(2, 40),
            "timestep": _step,
        },
    ),
    (
        "FluxTransformer2DModel",
        {
            "in_channels": 8,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "pooled_projection_dim": 40,
            "axes_dims_rope": (4, 4, 8),
        },
        {
            "hidden_states": tensor(1, 16, 8),
            "encoder_hidden_states": tensor(1, 6, 24),
            "pooled_projections": tensor(1, 40),
            "timestep": lambda: torch.tensor([0.5]),
            "img_ids": lambda: torch.zeros(16, 3),
            "txt_ids": lambda: torch.zeros(6, 3),
        },
    ),
    (
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 24,
            "num_layers": 2,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 5,
            "max_text_seq_length": 6,
        },
        {
            "hidden_states": tensor(1, 2, 4, 8, 8),
            "encoder_hidden_states": tensor(1, 6, 24),
            "timestep": lambda: torch.tensor([10]),
        },
    ),
]
for _name, _given, _inputs in _DIFFUSERS:
    put("diffusers", _name, lambda n=_name, g=_given: named(f"diffusers:{n}")(**g), **_inputs)


# transformers: (class, configuration, arguments, inputs by name)
def _hugging(name: str, config: str, given: dict[str, Any], **inputs: Any) -> None:
    def build() -> nn.Module:
        settings = named(f"transformers:{config}")(**given)
        return named(f"transformers:{name}")(settings)

    put("transformers", name, build, **inputs)


_SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TEXT = {"input_ids": words}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
for _family, _given in {
    "Llama": {},
    "Qwen3": {"head_dim": 12},
    "Qwen3Moe": {**_EXPERTS, "head_dim": 8},
    "Qwen3Next": {
        **_EXPERTS,
        "head_dim": 8,
        "num_hidden_layers": 4,
        "shared_expert_intermediate_size": 24,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "Mixtral": {"num_local_experts": 4},
    "Gemma2": {"head_dim": 8},
    "Phi3": {},
    "StableLm": {},
    "Olmo2": {},
    "GptOss": {"num_local_experts": 4, "head_dim": 8},
    "DeepseekV3": {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "q_lora_rank": 16,
        "kv_lora_rank": 12,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
    },
    "Falcon": {},
    "GPTNeoX": {},
    "Mamba": {"state_size": 4, "time_step_rank": 4},
    "Mamba2": {
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 4,
        "n_groups": 2,
        "chunk_size": 4,
    },
}.items():
    _hugging(f"{_family}ForCausalLM", f"{_family}Config", {**_SMALL, **_given}, **_TEXT)
_hugging(
    "GPT2LMHeadModel",
    "GPT2Config",
    {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    **_TEXT,
)
_hugging(
    "OPTForCausalLM",
    "OPTConfig",
    {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32},
    **_TEXT,
)
_hugging("BloomForCausalLM", "BloomConfig", {**_SMALL, "n_layer": 2, "n_head": 4}, **_TEXT)
_hugging(
    "XLNetLMHeadModel",
    "XLNetConfig",
    {"vocab_size": 96, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    **_TEXT,
)

# encoders of text
for _name, _config, _given in [
    ("BertForSequenceClassification", "BertConfig", {}),
    (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
    ("AlbertModel", "AlbertConfig", {"embedding_size": 16}),
    ("ModernBertForMaskedLM", "ModernBertConfig", {}),
    ("FNetModel", "FNetConfig", {}),
    ("LongformerModel", "LongformerConfig", {"attention_window": 4}),
    ("ConvBertModel", "ConvBertConfig", {"embedding_size": 32}),
]:
    _hugging(_name, _config, {**_SMALL, **_given}, **_TEXT)

# encoders with decoders
_T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0}
_PAIR = {"input_ids": words, "decoder_input_ids": lambda: words(7)}
_hugging("T5ForConditionalGeneration", "T5Config", {**_T5, "feed_forward_proj": "gated-gelu"}, **_PAIR)
_hugging("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", {**_T5, "num_experts": 4}, **_PAIR)
_BART = {
    "vocab_size": 96,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
_hugging("BartForConditionalGeneration", "BartConfig", _BART, **_PAIR)
_hugging(
    "WhisperForConditionalGeneration",
    "WhisperConfig",
    {
        **_BART,
        "num_mel_bins": 8,
        "max_source_positions": 16,
        "max_target_positions": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
    input_features=tensor(2, 8, 32),
    decoder_input_ids=lambda: words(7),
)

# pictures, films, sounds, series
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
for _name, _config, _given in [
    ("ViTForImageClassification", "ViTConfig", {}),
    ("Dinov2Model", "Dinov2Config", {"mlp_ratio": 2}),
    ("DPTForDepthEstimation", "DPTConfig", {
        "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 8}),
    ("YolosForObjectDetection", "YolosConfig", {"image_size": [32, 32], "num_detection_tokens": 5}),
    ("SiglipVisionModel", "SiglipVisionConfig", {}),
]:  # fmt: skip
    _hugging(_name, _config, {**_VISION, **_given}, pixel_values=picture(32))
_hugging(
    "SwinForImageClassification",
    "SwinConfig",
    {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    pixel_values=picture(32),
)
_hugging(
    "SegformerForSemanticSegmentation",
    "SegformerConfig",
    {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1, 2, 3, 4],
        "decoder_hidden_size": 16,
    },
    pixel_values=picture(64),
)
_hugging(
    "VideoMAEModel",
    "VideoMAEConfig",
    {**_VISION, "num_frames": 4, "tubelet_size": 2},
    pixel_values=tensor(1, 4, 3, 32, 32),
)
_hugging(
    "CLIPModel",
    "CLIPConfig",
    {
        "text_config": {**_SMALL, "max_position_embeddings": 16},
        "vision_config": _VISION,
        "projection_dim": 24,
    },
    input_ids=lambda: words(8),
    pixel_values=picture(32),
)
_SOUND = {
    **_SMALL,
    "conv_dim": (16, 16),
    "conv_kernel": (5, 3),
    "conv_stride": (3, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
_hugging("Wav2Vec2ForCTC", "Wav2Vec2Config", _SOUND, input_values=tensor(2, 400))
_hugging(
    "Wav2Vec2ConformerForCTC",
    "Wav2Vec2ConformerConfig",
    {**_SOUND, "position_embeddings_type": "relative"},
    input_values=tensor(2, 400),
)
_hugging(
    "EncodecModel",
    "EncodecConfig",
    {"num_filters": 8, "hidden_size": 16, "codebook_size": 16, "codebook_dim": 16, "upsampling_ratios": [4, 2]},
    input_values=tensor(1, 1, 640),
)
_hugging(
    "PatchTSTForPrediction",
    "PatchTSTConfig",
    {
        "num_input_channels": 3,
        "context_length": 32,
        "patch_length": 8,
        "patch_stride": 8,
        "prediction_length": 8,
        "d_model": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    past_values=tensor(2, 32, 3),
)
_DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 6,
}
_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage4"],
}
_hugging(
    "DetrForObjectDetection",
    "DetrConfig",
    {
        **_DETR,
        "use_timm_backbone": False,
        "backbone": None,
        "use_pretrained_backbone": False,
        "backbone_config": _RESNET,
    },
    pixel_values=picture(64),
)

# others
put(
    "lucidrains",
    "karras-unet",
    lambda: named("denoising_diffusion_pytorch.karras_unet:KarrasUnet")(
        image_size=16, dim=16, dim_max=32, channels=4, num_downsamples=2, num_blocks_per_stage=1, attn_res=(8,)
    ),
    _LATENT,
    lambda: torch.tensor([0.1, 0.7]),
)
put(
    "lucidrains",
    "ddpm-unet",
    lambda: named("denoising_diffusion_pytorch:Unet")(dim=16, dim_mults=(1, 2), channels=4, flash_attn=False),
    _LATENT,
    lambda: torch.tensor([3, 7]),
)
put(
    "lucidrains",
    "x-transformer",
    lambda: named("x_transformers:TransformerWrapper")(
        num_tokens=96,
        max_seq_len=32,
        attn_layers=named("x_transformers:Decoder")(dim=32, depth=2, heads=4, attn_dim_head=8, rotary_pos_emb=True),
    ),
    words,
)
put(
    "lucidrains",
    "cross-former",
    lambda: named("vit_pytorch.crossformer:CrossFormer")(num_classes=10, dim=(32, 64, 96, 128), depth=(1, 1, 1, 1)),
    picture(224, 1),
)
put(
    "lucidrains",
    "simple-vit",
    lambda: named("vit_pytorch.simple_vit:SimpleViT")(
        image_size=32, patch_size=8, num_classes=10, dim=32, depth=2, heads=4, mlp_dim=48, dim_head=12
    ),
    picture(32),
)
