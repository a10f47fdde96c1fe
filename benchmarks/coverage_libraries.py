"""Networks of further libraries for the coverage table: diffusers, monai, segmentation-models-pytorch,
open_clip, kornia, x-transformers and ultralytics, small and with random weights, and layers of kinds
that no library has to itself (graphs, speech, super-resolution).

A library that is not installed has no rows; none is a dependency of niwaki.

    python -m pip install --no-deps -r requirements-coverage.txt
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from coverage_models import CLASSES, VOCABULARY, Case, Inputs, image
from torch import Tensor, nn


def further() -> Iterator[Case]:
    """The networks of all libraries that are installed, and those of none."""
    yield from without_library()
    for package, rows in LIBRARIES.items():
        if importlib.util.find_spec(package) is not None:
            yield from rows()


def made(module: str, name: str, *args: Any, **kwargs: Any) -> nn.Module:
    """A class of a module that is imported when the network is built."""
    kind = importlib.import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    model: nn.Module = kind(*args, **kwargs)  # type: ignore[operator]  # a class, by its name
    return model


def noise(*shape: int) -> Callable[[int], Inputs]:
    """One tensor of normal numbers a sample."""
    return lambda batch: (torch.randn(batch, *shape),)


def words(length: int, most: int = VOCABULARY) -> Callable[[int], Inputs]:
    """One sequence of tokens a sample."""
    return lambda batch: (torch.randint(0, most, (batch, length)),)


# ----------------------------------------------------------------------------------------------
# diffusers

STEP = ("timestep",)


def from_diffusers() -> Iterator[Case]:
    def row(name: str, inputs: Callable[[int], Inputs], **told: Any) -> Case:
        return Case(f"diffusers/{name}", partial(made, "diffusers", name, **told), inputs)

    two = {"block_out_channels": (24, 40), "layers_per_block": 1, "norm_num_groups": 4}
    yield row(
        "UNet2DModel",
        lambda n: {"sample": torch.randn(n, 3, 32, 32), "timestep": torch.tensor(7)},
        sample_size=32, in_channels=3, out_channels=3, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **two,
    )  # fmt: skip
    yield row(
        "UNet2DConditionModel",
        lambda n: {
            "sample": torch.randn(n, 4, 16, 16),
            "timestep": torch.tensor(7),
            "encoder_hidden_states": torch.randn(n, 9, 28),
        },
        sample_size=16, cross_attention_dim=28, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **two,
    )  # fmt: skip
    coder = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        **two,
    }
    yield row("AutoencoderKL", partial(image, 32), latent_channels=4, **coder)
    yield row("VQModel", partial(image, 32), latent_channels=3, num_vq_embeddings=19, **coder)
    yield row(
        "AutoencoderTiny", partial(image, 32),
        encoder_block_out_channels=(12, 12), decoder_block_out_channels=(12, 12),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    heads = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2}
    yield row(
        "DiTTransformer2DModel",
        lambda n: {
            "hidden_states": torch.randn(n, 4, 8, 8),
            "timestep": torch.tensor([7]),
            "class_labels": torch.randint(0, 10, (n,)),
        },
        in_channels=4, out_channels=8, sample_size=8, num_embeds_ada_norm=11, **heads,
    )  # fmt: skip
    yield row(
        "SD3Transformer2DModel",
        lambda n: {
            "hidden_states": torch.randn(n, 4, 8, 8),
            "encoder_hidden_states": torch.randn(n, 7, 20),
            "pooled_projections": torch.randn(n, 28),
            "timestep": torch.full((n,), 7.0),
        },
        in_channels=4, out_channels=4, sample_size=8, patch_size=2, joint_attention_dim=20,
        caption_projection_dim=24, pooled_projection_dim=28, pos_embed_max_size=8, **heads,
    )  # fmt: skip
    yield row(
        "FluxTransformer2DModel",
        lambda n: {
            "hidden_states": torch.randn(n, 16, 4),
            "encoder_hidden_states": torch.randn(n, 7, 20),
            "pooled_projections": torch.randn(n, 28),
            "timestep": torch.full((n,), 0.7),
            "img_ids": torch.randn(16, 3).round(),
            "txt_ids": torch.zeros(7, 3),
        },
        in_channels=4, patch_size=1, joint_attention_dim=20, pooled_projection_dim=28,
        num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=16,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------
# monai


def from_monai() -> Iterator[Case]:
    def row(name: str, side: int = 32, **told: Any) -> Case:
        return Case(
            f"monai/{name}",
            partial(made, "monai.networks.nets", name, **told),
            noise(1, side, side),
        )

    plane = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    yield row("UNet", channels=(8, 12, 20), strides=(2, 2), num_res_units=1, **plane)
    yield row("AttentionUnet", channels=(8, 12, 20), strides=(2, 2), **plane)
    yield row("BasicUNet", features=(8, 8, 12, 20, 28, 8), **plane)
    yield row("BasicUNetPlusPlus", features=(8, 8, 12, 20, 28, 8), **plane)
    yield row("SegResNet", init_filters=8, **plane)
    yield row("VNet", **plane)
    yield row("HighResNet", **plane)
    yield row(
        "DynUNet", kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2],
        filters=[8, 12, 20], **plane,
    )  # fmt: skip
    yield row(
        "UNETR", img_size=(32, 32), feature_size=8, hidden_size=24, mlp_dim=40, num_heads=4, **plane
    )
    yield row("SwinUNETR", 64, feature_size=12, depths=(1, 1, 1, 1), num_heads=(2,) * 4, **plane)
    yield row("DenseNet121", **plane)
    yield row("EfficientNetBN", model_name="efficientnet-b0", spatial_dims=2, in_channels=1,
              num_classes=CLASSES, pretrained=False)  # fmt: skip
    yield row("MedNeXtS", spatial_dims=2, in_channels=1, out_channels=3)
    yield row("AutoEncoder", channels=(8, 12, 20), strides=(2, 2, 2), **plane)
    yield row("ViT", in_channels=1, img_size=(32, 32), patch_size=(8, 8), hidden_size=24,
              mlp_dim=40, num_layers=2, num_heads=4, spatial_dims=2, classification=True,
              num_classes=CLASSES)  # fmt: skip
    yield row("ViTAutoEnc", in_channels=1, img_size=(32, 32), patch_size=(4, 4), hidden_size=24,
              mlp_dim=40, num_layers=2, num_heads=4, spatial_dims=2)  # fmt: skip
    yield row("FlexibleUNet", 64, in_channels=1, out_channels=3, backbone="resnet18",
              pretrained=False, spatial_dims=2)  # fmt: skip
    yield row("AutoencoderKL", channels=(8, 12), num_res_blocks=1, norm_num_groups=4,
              attention_levels=(False, True), latent_channels=4, **plane)  # fmt: skip


# ----------------------------------------------------------------------------------------------
# segmentation-models-pytorch

DECODERS = (
    "Unet UnetPlusPlus MAnet Linknet FPN PSPNet DeepLabV3 DeepLabV3Plus PAN UPerNet Segformer"
)


def from_smp() -> Iterator[Case]:
    for name in DECODERS.split():
        for encoder in ("resnet18", "mobilenet_v2"):
            told = {"encoder_name": encoder, "encoder_weights": None, "classes": CLASSES}
            yield Case(
                f"smp/{name}_{encoder}",
                partial(made, "segmentation_models_pytorch", name, **told),
                partial(image, 128 if name == "PAN" else 64),
            )
    told = {"encoder_name": "mit_b0", "encoder_weights": None, "classes": CLASSES}
    yield Case(
        "smp/Segformer_mit_b0",
        partial(made, "segmentation_models_pytorch", "Segformer", **told),
        partial(image, 64),
    )


# ----------------------------------------------------------------------------------------------
# open_clip


def _image_and_text(batch: int) -> Inputs:
    return torch.randn(batch, 3, 32, 32), torch.randint(0, VOCABULARY, (batch, 12))


def from_open_clip() -> Iterator[Case]:
    text = {"context_length": 12, "vocab_size": VOCABULARY, "width": 40, "heads": 4, "layers": 2}
    vit = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 48, "head_width": 12}
    resnet = {"image_size": 32, "layers": (1, 1, 1, 1), "width": 16, "head_width": 32}
    towers = {
        "vit": vit,
        "vit_pooled": {**vit, "attentional_pool": True, "attn_pooler_heads": 4},
        "vit_scaled": {**vit, "ls_init_value": 0.1, "pool_type": "avg"},
        "resnet": resnet,
    }
    for name, vision in towers.items():
        told = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
        yield Case(
            f"open_clip/{name}", partial(made, "open_clip.model", "CLIP", **told), _image_and_text
        )
    yield Case(
        "open_clip/custom_text",
        partial(made, "open_clip.model", "CustomTextCLIP", embed_dim=24, vision_cfg=vit,
                text_cfg={**text, "pool_type": "last"}),
        _image_and_text,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------
# kornia


def from_kornia() -> Iterator[Case]:
    for name in ("HardNet", "HardNet8", "HyNet", "SOSNet", "TFeat", "OriNet"):
        build = partial(made, "kornia.feature", name, pretrained=False)
        yield Case(f"kornia/{name}", build, noise(1, 32, 32))
    yield Case("kornia/XFeatModel", partial(made, "kornia.feature", "XFeatModel"), noise(1, 64, 64))
    dexined = partial(made, "kornia.models.dexined", "DexiNed", pretrained=False)
    yield Case("kornia/DexiNed", dexined, partial(image, 64))
    yield Case(
        "kornia/DeFMO", partial(made, "kornia.feature", "DeFMO", pretrained=False), noise(6, 64, 64)
    )


# ----------------------------------------------------------------------------------------------
# x-transformers

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True, "alibi_num_heads": 2},
    "t5_bias": {"rel_pos_bias": True},
    "rmsnorm_glu": {"use_rmsnorm": True, "ff_glu": True, "ff_swish": True},
    "one_kv_head": {"attn_one_kv_head": True},
    "two_kv_heads": {"attn_kv_heads": 2},
    "qk_norm": {"attn_qk_norm": True},
    "memory": {"attn_num_mem_kv": 3},
    "gated": {"gate_residual": True, "attn_gate_values": True},
    "talking": {"attn_pre_talking_heads": True},
    "shifted": {"shift_tokens": 1},
    "sandwich": {"sandwich_norm": True},
    "macaron": {"macaron": True},
    "post_norm": {"pre_norm": False},
}


def from_x_transformers() -> Iterator[Case]:
    for kind in ("Decoder", "Encoder"):
        for name, told in WAYS.items():
            if kind == "Decoder" or name in ("plain", "rotary", "t5_bias", "rmsnorm_glu"):
                yield Case(
                    f"x_transformers/{kind.lower()}_{name}",
                    partial(_wrapped, kind, told),
                    words(14),
                )


def _wrapped(kind: str, told: dict[str, Any]) -> nn.Module:
    layers = made("x_transformers", kind, dim=48, depth=2, heads=4, attn_dim_head=12, **told)
    return made(
        "x_transformers", "TransformerWrapper", num_tokens=VOCABULARY, max_seq_len=32,
        attn_layers=layers,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------
# ultralytics

DETECTORS = [
    "yolov3-tiny",
    "yolov5n",
    "yolov6n",
    "yolov8n",
    "yolov9t",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolov8n-ghost",
    "yolov8n-p2",
    "yolov8n-p6",
]


def from_ultralytics() -> Iterator[Case]:
    def row(kind: str, file: str) -> Case:
        told = {"cfg": f"{file}.yaml", "nc": CLASSES, "verbose": False}
        return Case(
            f"ultralytics/{file}",
            partial(made, "ultralytics.nn.tasks", kind, **told),
            partial(image, 64),
        )

    for file in DETECTORS:
        yield row("DetectionModel", file)
    for version in ("yolov8n", "yolo11n"):
        yield row("SegmentationModel", f"{version}-seg")
        yield row("PoseModel", f"{version}-pose")
        yield row("OBBModel", f"{version}-obb")
        yield row("ClassificationModel", f"{version}-cls")
    yield row("RTDETRDetectionModel", "rtdetr-resnet50")


LIBRARIES: dict[str, Callable[[], Iterator[Case]]] = {
    "diffusers": from_diffusers,
    "monai": from_monai,
    "segmentation_models_pytorch": from_smp,
    "open_clip": from_open_clip,
    "kornia": from_kornia,
    "x_transformers": from_x_transformers,
    "ultralytics": from_ultralytics,
}

# ----------------------------------------------------------------------------------------------
# of no library


class GraphConvolution(nn.Module):
    """Two layers over a sparse adjacency; one row a node."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 28), nn.Linear(28, CLASSES)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        hidden: Tensor = torch.sparse.mm(edges, self.first(nodes)).relu()
        return torch.sparse.mm(edges, self.second(hidden))


class MessagePassing(nn.Module):
    """Messages along a list of edges, added up at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.message = nn.Linear(13, 28), nn.Linear(2 * 28, 20)
        self.update, self.last = nn.GRUCell(20, 28), nn.Linear(28, CLASSES)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        hidden = self.enter(nodes).relu()
        for _ in range(2):
            ends = torch.cat([hidden[edges[0]], hidden[edges[1]]], 1)
            told = self.message(ends).relu()
            sums = told.new_zeros(len(hidden), told.shape[1]).index_add(0, edges[1], told)
            hidden = self.update(sums, hidden)
        return self.last(hidden)  # type: ignore[no-any-return]


class Conformer(nn.Module):
    """A block of speech recognisers: half a feed-forward, attention, a gated convolution, half a
    feed-forward.
    """

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.enter = nn.Conv1d(16, width, 3, stride=2, padding=1)
        self.feed = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 76), nn.SiLU(), nn.Linear(76, width)
            )
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.gated = nn.Conv1d(width, 2 * width, 1)
        self.deep = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.normal, self.out = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.last = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).transpose(1, 2)
        x = x + self.feed[0](x) / 2
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = F.glu(self.gated(self.norms[1](x).transpose(1, 2)), dim=1)
        x = x + self.out(F.silu(self.normal(self.deep(y)))).transpose(1, 2)
        x = x + self.feed[1](x) / 2
        return self.last(self.norms[2](x))  # type: ignore[no-any-return]


class Speaker(nn.Module):
    """In the way of ECAPA-TDNN: parts of the channels passed on from one to the next, squeezed and
    excited, pooled with attention.
    """

    def __init__(self, width: int = 32, parts: int = 4) -> None:
        super().__init__()
        self.enter, self.parts = nn.Conv1d(16, width, 5, padding=2), parts
        part = width // parts
        self.steps = nn.ModuleList(nn.Conv1d(part, part, 3, padding=1) for _ in range(parts - 1))
        self.squeeze, self.excite = nn.Conv1d(width, 12, 1), nn.Conv1d(12, width, 1)
        self.look, self.weigh = nn.Conv1d(width, 20, 1), nn.Conv1d(20, width, 1)
        self.last = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        pieces = list(torch.chunk(x, self.parts, 1))
        for place, step in enumerate(self.steps, 1):
            pieces[place] = step(pieces[place] + pieces[place - 1]).relu()
        y = torch.cat(pieces, 1)
        y = x + y * self.excite(self.squeeze(y.mean(2, keepdim=True)).relu()).sigmoid()
        weights = self.weigh(self.look(y).tanh()).softmax(2)
        mean = (weights * y).sum(2)
        spread = ((weights * y**2).sum(2) - mean**2).clamp(min=1e-4).sqrt()
        return self.last(torch.cat([mean, spread], 1))  # type: ignore[no-any-return]


class WaveNet(nn.Module):
    """Dilated convolutions with two gates, and a sum of what every block skips ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 20, 1)
        self.both = nn.ModuleList(nn.Conv1d(20, 56, 2, dilation=2**n) for n in range(3))
        self.stay = nn.ModuleList(nn.Conv1d(28, 20, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(28, 36, 1) for _ in range(3))
        self.last = nn.Conv1d(36, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, ahead = self.enter(x), None
        for both, stay, skip in zip(self.both, self.stay, self.skip, strict=True):
            first, second = both(F.pad(x, (both.dilation[0], 0))).chunk(2, 1)
            y = first.tanh() * second.sigmoid()
            x = x + stay(y)
            ahead = skip(y) if ahead is None else ahead + skip(y)
        assert ahead is not None
        return self.last(ahead.relu())  # type: ignore[no-any-return]


class WithAuxiliaryHead(nn.Module):
    """Dense predictions, with a second head that is there in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(20, 36, 3, padding=1), nn.BatchNorm2d(36), nn.ReLU())
        self.head = nn.Conv2d(36, CLASSES, 1)
        self.aside = nn.Sequential(nn.Conv2d(20, 12, 3), nn.ReLU(), nn.Conv2d(12, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        early = self.early(x)
        out = self.head(self.late(early))
        return (out, self.aside(early)) if self.training else out


class ChannelAttention(nn.Module):
    """In the way of RCAN: residual groups of residual blocks with channel attention, enlarged."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.head, self.width = nn.Conv2d(3, width, 3, padding=1), width
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.down = nn.ModuleList(nn.Conv2d(width, width // 4, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(width // 4, width, 1) for _ in range(2))
        self.enlarge = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.head(x)
        for place in range(2):
            y = self.convs[2 * place + 1](self.convs[2 * place](x).relu())
            gate = self.up[place](self.down[place](F.adaptive_avg_pool2d(y, 1)).relu()).sigmoid()
            x = x + y * gate
        return self.tail(self.enlarge(x + first))  # type: ignore[no-any-return]


def _graph(batch: int, sparse: bool) -> Inputs:
    count = 9 + batch
    edges = torch.randint(0, count, (2, 4 * count))
    if not sparse:
        return torch.randn(count, 13), edges
    table = torch.zeros(count, count)
    table[edges[0], edges[1]] = 1.0
    return torch.randn(count, 13), (table + torch.eye(count)).to_sparse()


def without_library() -> Iterator[Case]:
    yield Case("own/graph_convolution", GraphConvolution, partial(_graph, sparse=True))
    yield Case("own/message_passing", MessagePassing, partial(_graph, sparse=False))
    yield Case("own/conformer", Conformer, noise(16, 30))
    yield Case("own/speaker", Speaker, noise(16, 30))
    yield Case("own/wavenet", WaveNet, noise(1, 40))
    yield Case("own/auxiliary_head", WithAuxiliaryHead, partial(image, 24))
    yield Case("own/channel_attention", ChannelAttention, partial(image, 16))
