"""A second encoder that in training follows the first, as in MoCo, BYOL and mean teachers: it is
cut along, however its parameters are written, and neither network is changed by the proof.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import TraceError

RATE = 0.1


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Momentum(nn.Module):
    def __init__(self, follow: Callable[[nn.Module, nn.Module], None]) -> None:
        super().__init__()
        self.query = Encoder()
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.follow = follow

    def forward(self, x: Tensor) -> Tensor:
        wanted: Tensor = self.query(x)
        if not self.training:
            return wanted
        with torch.no_grad():
            self.follow(self.query, self.key)
            known = self.key(x)
        gap: Tensor = wanted @ known.T
        return gap


def pairs(query: nn.Module, key: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(query.parameters(), key.parameters(), strict=True))


def set_data(query: nn.Module, key: nn.Module) -> None:
    for one, other in pairs(query, key):
        other.data = other.data * (1 - RATE) + one.data * RATE


def in_place(query: nn.Module, key: nn.Module) -> None:
    for one, other in pairs(query, key):
        other.mul_(1 - RATE).add_(one, alpha=RATE)


def copied(query: nn.Module, key: nn.Module) -> None:
    for one, other in pairs(query, key):
        other.data.copy_(torch.lerp(other, one, RATE))


def all_at_once(query: nn.Module, key: nn.Module) -> None:
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), RATE)


def in_two_lists(query: nn.Module, key: nn.Module) -> None:
    torch._foreach_mul_(list(key.parameters()), 1 - RATE)
    torch._foreach_add_(list(key.parameters()), list(query.parameters()), alpha=RATE)


def state_dicts(query: nn.Module, key: nn.Module) -> None:
    new, old = query.state_dict(), key.state_dict()
    key.load_state_dict(
        {name: torch.lerp(old[name], new[name], RATE) if old[name].is_floating_point() else new[name]
         for name in old}
    )  # fmt: skip


def as_a_vector(query: nn.Module, key: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(key.parameters())
    new = nn.utils.parameters_to_vector(query.parameters())
    nn.utils.vector_to_parameters(vector.lerp(new, RATE), key.parameters())


WAYS = [set_data, in_place, copied, all_at_once, in_two_lists, state_dicts, as_a_vector]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("compensation", ["none", None])
def test_it_is_cut_along_and_goes_on_following(
    way: Callable[[nn.Module, nn.Module], None], compensation: str | None
) -> None:
    torch.manual_seed(0)
    model, x = Momentum(way).eval(), torch.randn(2, 3, 8, 8)
    before = copy.deepcopy(model.state_dict())
    result = niwaki.prune(model, x, 0.5, compensation=compensation)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(words.startswith("training mode") for words in result.proof.covers)
    taught: Any = copy.deepcopy(result.model).train()
    assert taught.key.conv.weight.shape == taught.query.conv.weight.shape
    assert taught.query.conv.weight.shape[0] == 6
    moved = taught.key.conv.weight.detach().clone()
    taught(x)
    wanted = torch.lerp(moved, taught.query.conv.weight.detach(), RATE)
    assert torch.allclose(taught.key.conv.weight, wanted, atol=1e-6)


def test_an_encoder_that_follows_in_evaluation_too_is_refused_in_one_sentence() -> None:
    class Always(Momentum):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.follow(self.query, self.key)
            return self.key(x)  # type: ignore[no-any-return]

    for way in (set_data, in_place):
        torch.manual_seed(0)
        model = Always(way).eval()
        nn.init.zeros_(model.key.conv.weight)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(TraceError, match=r"into its parameter key\.conv\.weight"):
            niwaki.prune(model, torch.randn(2, 3, 8, 8), 0.5)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
