"""The networks of the coverage table: timm, torchvision, transformers and a few of no library, all
with random weights.

Sizes are small where the network allows it (64 × 64 images, two or three blocks of a transformer),
so that the table is made on two CPU cores in an hour. What is a size of its own has a number of its
own (vocabulary, width, inner width, heads, head width, tokens, classes), so that no cut fits by
chance.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]
CLASSES = 11


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        name: library/network.
        build: makes it, with random weights.
        inputs: batch size → arguments for its forward.
        final: names of its final layers (with * and ?), where they cannot be found by what the
            network returns.
        by_value: the outputs' sizes depend on values (how many boxes are found).
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    final: tuple[str, ...] = ()
    by_value: bool = False


def cases() -> list[Case]:
    """All networks, by library."""
    import torchvision_cpu  # noqa: F401  # before timm and transformers, which import torchvision
    from coverage_libraries import further

    return [*own(), *from_timm(), *from_torchvision(), *from_transformers(), *further()]


def image(side: int, batch: int) -> Inputs:
    return (torch.randn(batch, 3, side, side),)


# ----------------------------------------------------------------------------------------------
# timm

SMALL = {"embed_dim": 96, "depth": 2, "num_heads": 4}
SHALLOW = {"depth": 3}
# image side → networks of any image size
TIMM: dict[int, str] = {
    64: """
        convnext_atto convnextv2_atto convnext_zepto_rms cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_s cs3sedarknet_l
        cspresnet50 cspresnext50 darknet17 cspnext_tiny densenet121 densenet201 densenetblur121d dla34 dla46x_c
        dla60_res2net dpn48b dpn68b edgenext_xx_small edgenext_small efficientnet_b0 efficientnet_b0_gn
        efficientnet_b0_g8_gn efficientnet_cc_b0_4e mixnet_s mnasnet_small efficientnetv2_rw_t efficientnet_lite0
        mobilenetv1_100 mobilenetv2_050 fbnetc_100 spnasnet_100 tf_efficientnetv2_b0 tinynet_e efficientvim_m1
        efficientvit_b0 fasternet_t0 fastvit_t8 fastvit_sa12 focalnet_tiny_srf ghostnet_050 ghostnetv2_100 ghostnetv3_050
        hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto lcnetv2_small lowformer_b0
        mambaout_femto poolformer_s12 poolformerv2_s12 convformer_s18 caformer_s18 mobilenetv3_small_050 lcnet_035
        mobilenetv4_conv_small_035 mobilenetv4_hybrid_medium_075 fbnetv3_b nextvit_small test_nfnet eca_nfnet_l0
        nf_resnet26 nf_regnet_b0 pvt_v2_b0 pvt_v2_b2_li rdnet_tiny regnetx_002 regnety_002 regnetz_005 repghostnet_050
        res2net50_14w_8s res2next50 resnest14d resnest50d_4s2x40d resnet18 resnet26t resnet50 ecaresnet26t seresnet18
        resnetblur18 resnext50_32x4d resnetrs50 resnet50_gn resnetv2_50 resnetv2_50x1_bit resnetv2_50d_evos
        resnetv2_50d_frn rexnet_100 rexnetr_100 selecsls42b legacy_seresnet18 legacy_seresnext26_32x4d shvit_s1
        skresnet18 skresnext50_32x4d starnet_s1 tiny_vit_5m_224 tresnet_m ese_vovnet19b_slim ese_vovnet19b_dw
        eca_vovnet39b xception41 xception41p legacy_xception vgg11_bn convmixer_768_32 gernet_s mobileone_s0 repvgg_a0
        resnext26ts gcresnext26ts regnetz_b16 test_byobnet sam2_hiera_tiny nasnetalarge pnasnet5large
        """,
    96: "inception_resnet_v2 inception_v3 inception_v4",
    224: "efficientformer_l1",
    256: "halonet26t bat_resnext26ts",
}
# networks that are told their image size
TIMM_SIZED: dict[int, str] = {
    64: """
        botnet26t_256 lambda_resnet26t resnet50_clip coat_lite_tiny coat_tiny efficientformerv2_s0 efficientvit_m0
        gcvit_xxtiny hiera_tiny_224 levit_128s levit_conv_128s test_maxvit test_coatnet coatnext_nano_rw_224
        maxvit_pico_rw_256 maxxvitv2_nano_rw_256 mobilevit_xxs mobilevitv2_050 nest_tiny pit_ti_224 pit_ti_distilled_224
        repvit_m0_9 sequencer2d_s swiftformer_xs swin_s3_tiny_224 twins_pcpvt_small twins_svt_small visformer_tiny test_vit
        test_vit2 test_vit3 test_vit4 vit_tiny_r_s16_p8_224 test_vit_relpos vitamin_small_224 volo_d1_224
        xcit_nano_12_p16_224 gmixer_12_224 mixer_s32_224 gmlp_ti16_224 resmlp_12_224 mvitv2_tiny
        """,
}
# networks that are told more, to be small
TIMM_SMALL = """
    beit_base_patch16_224 beitv2_base_patch16_224 deit3_small_patch16_224 vit_small_patch16_dinov3
    eva_large_patch14_196 gemma4_vit_167m naflexvit_base_patch16_gap naflexvit_base_patch16_map qwen3_vit_88m
    vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_base_patch16_siglip_224
    vit_base_patch16_siglip_gap_224 flexivit_small aimv2_large_patch14_224 beit3_base_patch16_224
    vit_base_patch16_xp_224 vit_base_patch16_rpn_224 vit_base_patch16_clip_224 samvit_base_patch16
    """
TIMM_SHALLOW = """
    cait_xxs24_224 deit_tiny_distilled_patch16_224 eva02_tiny_patch14_224 vit_pe_core_tiny_patch16_384
    tnt_s_patch16_224 vit_tiny_patch16_224 vit_srelpos_small_patch16_224
    """
TIMM_TOLD: dict[str, dict[str, Any]] = {
    **{name: {"img_size": 64, **SMALL} for name in TIMM_SMALL.split()},
    **{name: {"img_size": 64, **SHALLOW} for name in TIMM_SHALLOW.split()},
    "convit_tiny": {"img_size": 64, "depth": 4, "local_up_to_layer": 2},
    "deepseek_vit_412m": {"img_size": 84, **SMALL},
    "davit_tiny": {"depths": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "depths": (2, 2, 2, 2), "window_size": 4},
    "swinv2_tiny_window8_256": {"img_size": 64, "depths": (2, 2, 2, 2), "window_size": 4},
    "swinv2_cr_tiny_224": {"img_size": 64, "depths": (2, 2, 2, 2)},
}


def from_timm() -> Iterator[Case]:
    """One or two networks of every family."""
    for table, sized in ((TIMM, False), (TIMM_SIZED, True)):
        for side, names in table.items():
            for name in names.split():
                told = {"img_size": side} if sized else {}
                yield Case(f"timm/{name}", partial(_timm, name, told), partial(image, side))
    for name, told in TIMM_TOLD.items():
        yield Case(
            f"timm/{name}", partial(_timm, name, told), partial(image, told.get("img_size", 64))
        )


def _timm(name: str, told: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=CLASSES, **told)


# ----------------------------------------------------------------------------------------------
# torchvision

TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s mnasnet0_5 mobilenet_v2 mobilenet_v3_small
    mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet50 wide_resnet50_2 resnext50_32x4d
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11
    """
NO_AUXILIARY = {"aux_logits": False, "init_weights": False}
VIDEO = "r3d_18 mc3_18 r2plus1d_18 swin3d_t"
SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large"
)
FEW = {
    "min_size": 96,
    "max_size": 96,
}  # pixels, then boxes: torchvision's own numbers make a run take minutes
PROPOSALS = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 20}
TWO_STAGES = {**FEW, **PROPOSALS, "box_detections_per_img": 10, "box_score_thresh": 0.0}
ONE_STAGE = {**FEW, "topk_candidates": 60, "detections_per_img": 20}
SSD = {"topk_candidates": 60, "detections_per_img": 20}
TWO_STAGE_FINAL = ("*.cls_score", "*.bbox_pred", "*.cls_logits", "*.mask_fcn_logits")
ONE_STAGE_FINAL = ("*.cls_logits", "*.bbox_reg", "*.bbox_ctrness")
# name → settings, final layers
DETECTION: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (TWO_STAGES, TWO_STAGE_FINAL),
    "maskrcnn_resnet50_fpn": (TWO_STAGES, TWO_STAGE_FINAL),
    "retinanet_resnet50_fpn": (ONE_STAGE, ONE_STAGE_FINAL),
    "fcos_resnet50_fpn": (ONE_STAGE, ONE_STAGE_FINAL),
    "ssdlite320_mobilenet_v3_large": (SSD, ("head.*.module_list.?.1",)),
}


def from_torchvision() -> Iterator[Case]:
    """Classification, segmentation, detection, video and optical flow."""
    for name in TORCHVISION.split():
        yield Case(f"torchvision/{name}", partial(_torchvision, name, {}), partial(image, 64))
    yield Case(
        "torchvision/googlenet",
        partial(_torchvision, "googlenet", NO_AUXILIARY),
        partial(image, 64),
    )
    yield Case(
        "torchvision/inception_v3",
        partial(_torchvision, "inception_v3", NO_AUXILIARY),
        partial(image, 96),
    )
    yield Case("torchvision/vit_b_16", _torchvision_vit, partial(image, 64))
    yield Case("torchvision/mvit_v2_s", _torchvision_mvit, partial(_video, 8))
    for name in VIDEO.split():
        yield Case(f"torchvision/{name}", partial(_torchvision, name, {}), partial(_video, 8))
    for name in SEGMENTATION.split():
        told = {"weights_backbone": None}
        yield Case(f"torchvision/{name}", partial(_torchvision, name, told), partial(image, 64))
    for name, (told, final) in DETECTION.items():
        told = {"weights_backbone": None, **told}
        side = int(told.get("max_size", 128))
        yield Case(
            f"torchvision/{name}",
            partial(_torchvision, name, told),
            partial(_images, side),
            final,
            by_value=True,
        )


def _torchvision(name: str, told: dict[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=CLASSES, **told)


def _torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        64, 16, num_layers=2, num_heads=4, hidden_dim=96, mlp_dim=152, num_classes=CLASSES
    )


def _torchvision_mvit() -> nn.Module:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    def block(heads: int, inputs: int, outputs: int, stride: int) -> MSBlockConfig:
        return MSBlockConfig(
            heads, inputs, outputs, [3, 3, 3], [3, 3, 3], [1, stride, stride], [1, 2, 2]
        )

    blocks = [block(2, 48, 48, 1), block(4, 48, 96, 2), block(4, 96, 96, 1)]
    return MViT((64, 64), 8, blocks, True, True, True, True, num_classes=CLASSES)


def _video(frames: int, batch: int) -> Inputs:
    return (torch.randn(batch, 3, frames, 64, 64),)


def _images(side: int, batch: int) -> Inputs:
    return ([torch.rand(3, side, side) for _ in range(batch)],)


# ----------------------------------------------------------------------------------------------
# transformers

VOCABULARY, TOKENS = 211, 10
BODY = {
    "hidden_size": 96,
    "intermediate_size": 152,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WIDTHS = {"vocab_size": VOCABULARY, **BODY}
PLACES = {"max_position_embeddings": 40}
LABELS = {"num_labels": CLASSES}
NO_CACHE = {"use_cache": False}
PAD = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**WIDTHS, **PLACES, **LABELS, **PAD}
DECODER = {**WIDTHS, **PLACES, **NO_CACHE, **PAD}
GROUPED = {**DECODER, "num_key_value_heads": 2}
HEAD_DIM = {"head_dim": 20}
VISION = {**BODY, "image_size": 64, "patch_size": 16, **LABELS}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 56}

# class name without `Config` → head class, configuration
TEXT_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "Bert": ENCODER,
    "Roberta": ENCODER,
    "DistilBert": {"vocab_size": VOCABULARY, "dim": 96, "hidden_dim": 152, "n_layers": 2, "n_heads": 4, **PLACES, **LABELS},
    "DebertaV2": {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "Deberta": {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "Albert": {**ENCODER, "embedding_size": 28},
    "Electra": {**ENCODER, "embedding_size": 28},
    "MPNet": ENCODER,
    "MobileBert": {**ENCODER, "embedding_size": 28, "intra_bottleneck_size": 64, "num_feedforward_networks": 2},
    "SqueezeBert": {**ENCODER, "embedding_size": 96},
    "Funnel": {
        "vocab_size": VOCABULARY, "block_sizes": [1, 1], "d_model": 96, "n_head": 4, "d_head": 20, "d_inner": 152, **LABELS
    },
    "ConvBert": {**ENCODER, "embedding_size": 28},
    "Longformer": {**ENCODER, "attention_window": 4},
    "FNet": {key: value for key, value in ENCODER.items() if key != "num_attention_heads"},
    "XLNet": {"vocab_size": VOCABULARY, "d_model": 96, "n_layer": 2, "n_head": 4, "d_inner": 152, **LABELS},
    "ModernBert": {**ENCODER, "global_attn_every_n_layers": 2},
    "Nystromformer": {**ENCODER, "segment_means_seq_len": 10, "num_landmarks": 5},
}  # fmt: skip
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 96, "n_layer": 2, "n_head": 4, "n_inner": 152, **NO_CACHE},
    "GPTNeo": {
        "vocab_size": VOCABULARY, "hidden_size": 96, "num_layers": 2, "num_heads": 4, "intermediate_size": 152,
        "attention_types": [[["global", "local"], 1]], **PLACES, **NO_CACHE,
    },
    "GPTNeoX": DECODER,
    "GPTJ": {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 96, "n_layer": 2, "n_head": 4, "rotary_dim": 8, **NO_CACHE},
    "GPTBigCode": {
        "vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 96, "n_layer": 2, "n_head": 4, "n_inner": 152, **NO_CACHE
    },
    "CodeGen": {
        "vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 96, "n_layer": 2, "n_head": 4, "n_inner": 152,
        "rotary_dim": 8, **NO_CACHE,
    },
    "OPT": {
        "vocab_size": VOCABULARY, "hidden_size": 96, "ffn_dim": 152, "num_hidden_layers": 2, "num_attention_heads": 4,
        "word_embed_proj_dim": 96, **PLACES, **NO_CACHE,
    },
    "Bloom": {"vocab_size": VOCABULARY, "hidden_size": 96, "n_layer": 2, "n_head": 4, **NO_CACHE},
    "Falcon": {**DECODER, "alibi": False, "ffn_hidden_size": 152},
    "Llama": GROUPED,
    "Mistral": {**GROUPED, **HEAD_DIM, "sliding_window": 6},
    "Mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": GROUPED,
    "Qwen2Moe": {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 72},
    "Qwen3": {**GROUPED, **HEAD_DIM},
    "Qwen3Moe": {**GROUPED, **HEAD_DIM, **EXPERTS},
    "Gemma": {**GROUPED, **HEAD_DIM},
    "Gemma2": {**GROUPED, **HEAD_DIM, "sliding_window": 6, "query_pre_attn_scalar": 20},
    "Gemma3Text": {**GROUPED, **HEAD_DIM, "sliding_window": 6, "query_pre_attn_scalar": 20},
    "Phi": {**DECODER, "partial_rotary_factor": 0.5},
    "Phi3": GROUPED,
    "StableLm": {**GROUPED, "partial_rotary_factor": 0.5},
    "Olmo2": GROUPED,
    "Cohere": GROUPED,
    "Granite": GROUPED,
    "Starcoder2": {**GROUPED, "sliding_window": 6},
    "Persimmon": {**DECODER, "partial_rotary_factor": 0.5},
    "SmolLM3": GROUPED,
    "DeepseekV3": {
        **GROUPED, "num_key_value_heads": 4, "q_lora_rank": 36, "kv_lora_rank": 28, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 14, "v_head_dim": 18, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "moe_intermediate_size": 56, "first_k_dense_replace": 1,
    },
    "Mamba": {"vocab_size": VOCABULARY, "hidden_size": 48, "state_size": 6, "num_hidden_layers": 2, **NO_CACHE},
    "Mamba2": {
        "vocab_size": VOCABULARY, "hidden_size": 48, "state_size": 6, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 12,
        "n_groups": 2, "chunk_size": 4, **NO_CACHE,
    },
    "Rwkv": {
        "vocab_size": VOCABULARY, "hidden_size": 96, "attention_hidden_size": 96, "intermediate_size": 152,
        "num_hidden_layers": 2, "context_length": 40, **NO_CACHE,
    },
}  # fmt: skip
BART = {
    "vocab_size": VOCABULARY, "d_model": 96, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 152, "decoder_ffn_dim": 168, **PLACES, **NO_CACHE, **PAD,
    "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
TRANSLATORS: dict[str, dict[str, Any]] = {
    "T5": {
        "vocab_size": VOCABULARY, "d_model": 96, "d_kv": 20, "d_ff": 152, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0, **NO_CACHE,
    },
    "Bart": BART,
    "MBart": BART,
    "Pegasus": BART,
    "M2M100": BART,
}  # fmt: skip
STAGES = {"hidden_sizes": [24, 40, 56, 88], "depths": [1, 1, 1, 1]}
IMAGE_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ViT": VISION,
    "DeiT": VISION,
    "Dinov2": {**VISION, "mlp_ratio": 2, "intermediate_size": None},
    "Dinov2WithRegisters": {**VISION, "mlp_ratio": 2, "intermediate_size": None},
    "Beit": VISION,
    "ViTMSN": VISION,
    "Siglip": {"vision_config": {key: value for key, value in VISION.items() if key != "num_labels"}, **LABELS},
    "Swin": {"image_size": 64, "embed_dim": 48, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, **LABELS},
    "Swinv2": {"image_size": 64, "embed_dim": 48, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, **LABELS},
    "ConvNext": {**STAGES, **LABELS},
    "ConvNextV2": {**STAGES, **LABELS},
    "ResNet": {**STAGES, "embedding_size": 20, **LABELS},
    "RegNet": {**STAGES, "embedding_size": 20, "groups_width": 8, **LABELS},
    "PoolFormer": {**STAGES, **LABELS},
    "PvtV2": {"image_size": 64, "hidden_sizes": [16, 24, 40, 64], "depths": [1, 1, 1, 1], **LABELS},
    "Cvt": {"embed_dim": [16, 48, 96], "depth": [1, 2, 3], "num_heads": [1, 3, 6], **LABELS},
    "MobileViT": {"image_size": 64, **LABELS},
    "MobileNetV2": {"image_size": 64, **LABELS},
    "EfficientNet": {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.4, "hidden_dim": 640, **LABELS},
    "Levit": {
        "image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
        "key_dim": [10, 10, 10], **LABELS,
    },
    "Segformer": {
        "hidden_sizes": [16, 24, 40, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8], **LABELS
    },
}  # fmt: skip


def from_transformers() -> Iterator[Case]:
    """Tiny configurations of the library's language, vision, speech and mixed networks."""
    for name, told in TEXT_CLASSIFIERS.items():
        yield _hugging(name, "ForSequenceClassification", told, _text)
    for name, told in DECODERS.items():
        yield _hugging(
            name, "ForCausalLM" if name not in ("GPT2", "Rwkv") else _HEADS[name], told, _text
        )
    for name, told in TRANSLATORS.items():
        yield _hugging(name, "ForConditionalGeneration", told, _two_texts, "logits")
    for name, told in IMAGE_CLASSIFIERS.items():
        yield _hugging(name, "ForImageClassification", told, _pixels)
    segformer = IMAGE_CLASSIFIERS["Segformer"] | {"decoder_hidden_size": 52}
    yield _hugging("Segformer", "ForSemanticSegmentation", segformer, _pixels)
    yolos = {**VISION, "image_size": [64, 64], "num_detection_tokens": 7}
    yield _hugging("Yolos", "ForObjectDetection", yolos, _pixels, "logits")
    yield Case("transformers/DetrForObjectDetection", _detr, _pixels)
    text = {**WIDTHS, **PLACES, "bos_token_id": 1, "eos_token_id": 2, "projection_dim": 36}
    vision = {key: value for key, value in VISION.items() if key != "num_labels"} | {
        "projection_dim": 36
    }
    clip = {"text_config": text, "vision_config": vision, "projection_dim": 36}
    yield _hugging("CLIP", "Model", clip, _text_and_pixels, "logits_per_image")
    yield _hugging("Siglip", "Model", clip, _text_and_pixels, "logits_per_image")
    whisper = {
        **BART,
        "num_mel_bins": 14,
        "max_source_positions": 12,
        "max_target_positions": 40,
        "suppress_tokens": None,
    }
    yield _hugging("Whisper", "ForConditionalGeneration", whisper, _speech, "logits")
    sound = {
        **ENCODER, "conv_dim": (20, 28), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 44,
    }  # fmt: skip
    yield _hugging("Wav2Vec2", "ForSequenceClassification", sound, _waves)
    yield _hugging("Hubert", "ForSequenceClassification", sound, _waves)
    yield _hugging(
        "Wav2Vec2Conformer",
        "ForSequenceClassification",
        {**sound, "conv_depthwise_kernel_size": 5},
        _waves,
    )
    spectrum = {key: value for key, value in VISION.items() if key != "image_size"} | {
        "num_mel_bins": 32,
        "max_length": 48,
    }
    yield _hugging("AST", "ForAudioClassification", spectrum, _spectra)


_HEADS = {"GPT2": "LMHeadModel", "Rwkv": "ForCausalLM"}


class Only(nn.Module):
    """A network of which one output is used: the others (hidden states) would be channels that must
    stay.
    """

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, **arguments: Tensor) -> Tensor:
        return getattr(self.model(**arguments), self.output)


def _hugging(
    name: str,
    head: str,
    told: dict[str, Any],
    inputs: Callable[[int], Inputs],
    only: str | None = None,
) -> Case:
    stem = name.removesuffix("Text") if head == "ForCausalLM" and name.endswith("Text") else name
    return Case(
        f"transformers/{stem}{head}",
        partial(_transformer, name, f"{stem}{head}", told, only),
        inputs,
    )


def _transformer(name: str, kind: str, told: dict[str, Any], only: str | None) -> nn.Module:
    library = importlib.import_module("transformers")
    config = getattr(library, f"{name}Config")(**told)
    config._experts_implementation = (
        "eager"  # the default, one grouped product, has no float64 on the CPU
    )
    model = getattr(library, kind)(config)
    return Only(model, only) if only else model


def _detr() -> nn.Module:
    library = importlib.import_module("transformers")
    backbone = library.ResNetConfig(**STAGES, embedding_size=20, out_features=["stage4"])
    told = {
        "d_model": 96, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 152, "decoder_ffn_dim": 168, "num_queries": 7,
    }  # fmt: skip
    own = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone_config": backbone,
    }
    config = library.DetrConfig(**own, **told, **LABELS)
    return Only(library.DetrForObjectDetection(config), "logits")


def _text(batch: int) -> Inputs:
    return {"input_ids": torch.randint(3, VOCABULARY, (batch, TOKENS))}


def _two_texts(batch: int) -> Inputs:
    return {**_text(batch), "decoder_input_ids": torch.randint(3, VOCABULARY, (batch, 7))}


def _pixels(batch: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, 64, 64)}


def _text_and_pixels(batch: int) -> Inputs:
    return {**_text(batch), **_pixels(batch)}


def _speech(batch: int) -> Inputs:
    return {
        "input_features": torch.randn(batch, 14, 24),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (batch, 7)),
    }


def _waves(batch: int) -> Inputs:
    return {"input_values": torch.randn(batch, 400)}


def _spectra(batch: int) -> Inputs:
    return {"input_values": torch.randn(batch, 48, 32)}


# ---------------------------------------------------------------------------------------------- of
# no library


class RecurrentClassifier(nn.Module):
    """Tokens → the last state of a recurrent layer → classes."""

    def __init__(self, kind: type[nn.RNNBase], both_ways: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 36)
        self.recurrent = kind(36, 28, num_layers=2, batch_first=True, bidirectional=both_ways)
        self.classifier = nn.Linear(28 * (1 + both_ways), CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.recurrent(self.embedding(tokens))
        return self.classifier(states[:, -1])


class AttentionClassifier(nn.Module):
    """nn.MultiheadAttention, with and without separate key and value widths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 48)
        self.narrow = nn.Linear(48, 20)
        self.attention = nn.MultiheadAttention(48, 4, batch_first=True)
        self.cross = nn.MultiheadAttention(48, 4, kdim=20, vdim=20, batch_first=True)
        self.norm = nn.LayerNorm(48)
        self.inner = nn.Sequential(nn.Linear(48, 76), nn.GELU(), nn.Linear(76, 48))
        self.classifier = nn.Linear(48, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        memory = self.narrow(x)
        x = x + self.cross(x, memory, memory, need_weights=False)[0]
        return self.classifier((x + self.inner(self.norm(x))).mean(1))


class Translator(nn.Module):
    """nn.Transformer between two embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, 48), nn.Embedding(VOCABULARY, 48)
        self.transformer = nn.Transformer(48, 4, 2, 2, 76, batch_first=True)
        self.words = nn.Linear(48, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = self.transformer.generate_square_subsequent_mask(target.shape[1])
        return self.words(self.transformer(self.source(source), self.target(target), tgt_mask=mask))


class UNet(nn.Module):
    """Two levels down, two up by transposed convolutions, with concatenations across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = (
            self._block(3, 12),
            self._block(12, 20),
            self._block(20, 36),
        )
        self.rise2, self.up2 = nn.ConvTranspose2d(36, 20, 2, stride=2), self._block(40, 20)
        self.rise1, self.up1 = nn.ConvTranspose2d(20, 12, 2, stride=2), self._block(24, 12)
        self.out = nn.Conv2d(12, CLASSES, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        layers = [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        return nn.Sequential(
            *layers, nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.rise2(self.bottom(F.max_pool2d(second, 2)))
        x = self.rise1(self.up2(torch.cat([x, second], 1)))
        return self.out(self.up1(torch.cat([x, first], 1)))


class SuperResolution(nn.Module):
    """Residual blocks, pixel shuffle, and the enlarged input added."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 20, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(20, 28, 3, padding=1), nn.PReLU(28), nn.Conv2d(28, 20, 3, padding=1)
            )
            for _ in range(3)
        )
        self.enlarge = nn.Sequential(
            nn.Conv2d(20, 14 * 4, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()
        )
        self.tail = nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        for block in self.body:
            features = features + block(features)
        return F.interpolate(x, scale_factor=2, mode="bilinear") + self.tail(self.enlarge(features))


def _tokens(batch: int) -> Inputs:
    return (torch.randint(0, VOCABULARY, (batch, TOKENS)),)


def _two_tokens(batch: int) -> Inputs:
    return torch.randint(0, VOCABULARY, (batch, TOKENS)), torch.randint(0, VOCABULARY, (batch, 7))


def own() -> Iterator[Case]:
    """Layers of torch that no library above uses much."""
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        for both_ways in (False, True):
            name = kind.__name__.lower() + ("_both_ways" if both_ways else "")
            yield Case(f"own/{name}", partial(RecurrentClassifier, kind, both_ways), _tokens)
    yield Case("own/multihead_attention", AttentionClassifier, _tokens)
    yield Case("own/transformer", Translator, _two_tokens)
    yield Case("own/unet", UNet, partial(image, 32))
    yield Case("own/super_resolution", SuperResolution, partial(image, 24))
