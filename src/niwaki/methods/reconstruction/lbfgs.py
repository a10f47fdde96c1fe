"""Layer-wise recovery through the non-linearity: a few steps of L-BFGS behind the closed form.

The closed form (niwaki.methods.reconstruction.refit) fits what a layer puts out before its
non-linearity f, and so also spends its freedom on numbers that f throws away. From there, for every
layer with a non-linearity at once behind it, perhaps with a normalisation between, all weights and
constants go down

    E|f(W'·x + b') - f(W·x₀ + b)|² / E|f(W·x₀ + b) - mean|² + λ·|W' - W_closed|²,

x what the pruned layer reads by then, x₀ what the original's reads. A normalisation takes its
statistics over the rows at hand, as they will be counted; its factors and constants are fitted too.
A fifth of the inputs is held out: where the error does not fall on them, the closed form stays.

Source: the objective with the non-linearity is that of Zhang, Zou, He, Sun, Accelerating Very Deep
Convolutional Networks for Classification and Detection, TPAMI 2016, section 3.2; L-BFGS with a
strong Wolfe line search is torch's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.graph.products import Product, Tail, tail
from niwaki.methods.base.recovery import RECOVERIES
from niwaki.methods.base.side_by_side import SideBySide
from niwaki.methods.reconstruction.refit import Refit, bias_of

FOLDS = 5  # one of which is held out


@RECOVERIES.register("lbfgs")
@dataclass(frozen=True)
class Lbfgs(Refit):
    """`refit`, and then L-BFGS on what the original's layers put out behind their non-linearities.

    Attributes:
        steps: iterations a layer.
        rows: places of all inputs together, at most, that the steps look at.
    """

    steps: int = 20
    rows: int = 32768

    name: ClassVar[str] = "lbfgs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.rows < FOLDS:
            raise SettingError(
                f"lbfgs:steps must be at least 1 and lbfgs:rows at least {FOLDS}; got "
                f"{self.steps}, {self.rows}"
            )

    def _fit(self, runs: SideBySide, layer: Product) -> list[str]:
        done = super()._fit(runs, layer)
        behind = tail(runs.graph, layer) if len(layer.calls) == 1 else None
        if done and behind is not None and self._descend(runs, layer, behind):
            done.append("descended")
        return done

    def _more(self, done: Counter[str]) -> str:
        return f", {done['descended']} of them further behind their non-linearities"

    def _descend(self, runs: SideBySide, layer: Product, behind: Tail) -> bool:
        """Whether the steps helped on what was held out; else nothing is changed."""
        seen, results, held = self._table(runs, layer)
        wanted = behind(
            _normalised(
                behind, runs.graph.state, results, runs.left(layer.weight, 1 if layer.turned else 0)
            )
        )
        fit = _Fit(layer, behind, runs, self.norms)
        used = ~held
        spread = (wanted[used] - wanted[used].mean(0)).square().sum(1).mean().clamp(min=1e-30)
        damping = self.ridge * seen[used].var(0).mean() / spread
        closed = fit.leaves["weight"].detach().clone()

        def errors() -> Tensor:
            return (fit(seen) - wanted).square().sum(1)

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = (
                errors()[used].mean() / spread
                + damping * (fit.leaves["weight"] - closed).square().sum()
            )
            value.backward()
            return value

        before = errors()[held].mean()
        optimizer = torch.optim.LBFGS(
            list(fit.leaves.values()), max_iter=self.steps, line_search_fn="strong_wolfe"
        )
        with torch.enable_grad():
            optimizer.step(loss)
        if not bool(errors()[held].mean() < before):
            return False
        fit.write()
        return True

    def _table(self, runs: SideBySide, layer: Product) -> tuple[Tensor, Tensor, Tensor]:
        """Rows that the layer sums over, what the original's puts out there, and which are held
        out.
        """
        pieces = []
        for number, (rows, wanted) in enumerate(self._pairs(runs, layer)):
            step = (
                -(-len(rows) * runs.batches // self.rows) | 1
            )  # odd: not the same stretch of every map
            rows, wanted = rows[::step].float(), wanted[::step].float()
            held = (
                torch.arange(len(rows), device=rows.device) >= len(rows) - len(rows) // FOLDS
            )  # the last inputs of a batch
            if runs.batches >= FOLDS:
                held = torch.full_like(held, number % FOLDS == FOLDS - 1)  # or whole batches
            pieces.append((rows, wanted, held))
        seen, results, held = (torch.cat(part) for part in zip(*pieces, strict=True))
        return seen, results, held


class _Fit:
    """The pruned layer up to behind its non-linearity, as a function of tensors that are fitted.

    Attributes:
        leaves: the weight (out, in), and the bias, the normalisation's factor and its constant
            where there are such.
    """

    def __init__(self, layer: Product, behind: Tail, runs: SideBySide, counted: bool) -> None:
        self._layer, self._behind, self._state, self._counted = layer, behind, runs.state, counted
        norm, bias = behind.norm, bias_of(runs, layer)
        held = {"weight": layer.matrix(runs.state[layer.weight])}
        if bias is not None:
            held["bias"] = bias
        if norm is not None:
            held |= {
                key: runs.state[name]
                for key, name in (("scale", norm.scale), ("shift", norm.shift))
                if name is not None
            }
        self._held = held
        self.leaves = {
            key: tensor.detach().float().clone().requires_grad_() for key, tensor in held.items()
        }

    def __call__(self, rows: Tensor) -> Tensor:
        results = rows @ self.leaves["weight"].T + self.leaves.get("bias", 0.0)
        norm = self._behind.norm
        if norm is not None:
            mean, var = self._state[norm.mean].float(), self._state[norm.var].float()
            if self._counted:
                mean, var = results.mean(0), results.var(0)
            results = (results - mean) / (var + norm.eps).sqrt() * self.leaves.get(
                "scale", 1.0
            ) + self.leaves.get("shift", 0.0)
        return self._behind(results)

    def write(self) -> None:
        """Put the fitted weights into the pruned network."""
        fitted = {key: leaf.detach() for key, leaf in self.leaves.items()}
        self._layer.write(
            self._state[self._layer.weight], fitted.pop("weight").to(self._held["weight"].dtype)
        )
        for key, value in fitted.items():
            self._held[key].copy_(value)


def _normalised(behind: Tail, state: dict[str, Tensor], results: Tensor, kept: Tensor) -> Tensor:
    """What the original's normalisation makes of some of its channels."""
    norm = behind.norm
    if norm is None:
        return results
    mean, var, scale, shift = (
        None if name is None else state[name].detach().float()[kept.to(results.device)]
        for name in (norm.mean, norm.var, norm.scale, norm.shift)
    )
    assert mean is not None
    assert var is not None
    results = (results - mean) / (var + norm.eps).sqrt()
    return results * (1.0 if scale is None else scale) + (0.0 if shift is None else shift)
