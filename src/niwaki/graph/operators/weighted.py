"""Which operators sum over channels against a weight, and which are attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from niwaki.graph.facts import Facts
from niwaki.running import Op


@dataclass(frozen=True)
class Weighted:
    """A sum over channels against a weight.

    Attributes:
        rows, weight, bias: what the operator calls its arguments; no bias where it adds none.
        turned: whether the weight is (in, out), and not (out, in, …).
        image: whether channels are the second axis and places follow; else they are the last.
    """

    rows: str
    weight: str
    bias: str | None
    turned: bool = False
    image: bool = False

    def operands(self, op: Op) -> tuple[Any, Any, Any]:
        """The rows, the weight and the bias that it was called with."""
        return op[self.rows], op[self.weight], None if self.bias is None else op[self.bias]

    def __str__(self) -> str:
        axes = (
            f"{'(in, out)' if self.turned else '(out, in)'}{' over an image' if self.image else ''}"
        )
        return f"{self.rows} · {self.weight} {axes}" + (f" + {self.bias}" if self.bias else "")


WEIGHTED = Facts(
    "weighted",
    "what is summed against which weight, with which bias; repairs ask",
    {
        "convolution": Weighted("input", "weight", "bias", image=True),
        "linear": Weighted("input", "weight", "bias"),
        "addmm": Weighted("mat1", "mat2", "self", turned=True),
        "mm": Weighted("self", "mat2", None, turned=True),
    },
)


def over_image(op: Op) -> bool:
    """Whether an operator lays a weight over an image: places follow its channels."""
    weighted = WEIGHTED.get(op)
    return weighted is not None and weighted.image


ATTENTION = (  # the kernels that scaled_dot_product_attention chooses from
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)


def is_attention(op: Op) -> bool:
    """Whether an operator is a kernel of scaled_dot_product_attention."""
    return op.name in _KERNELS


_KERNELS = {f"aten.{name}" for name in ATTENTION}
