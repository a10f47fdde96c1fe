"""Costs that are worked out once, against the sizes of a pruned network."""

from __future__ import annotations

import torch
from torch import nn

import niwaki
from niwaki.graph.counting import SumOfProducts
from niwaki.graph.terms import Var, concat, kept_size, product


def test_equal_products_are_added_up_and_all_terms_follow_their_counts() -> None:
    one, other, fixed = Var(4), Var(6), Var(5)
    products = [
        (one, other),
        (other, one),
        (one, one, fixed),
        (concat(one, other), fixed),
        (fixed,),
    ]
    cost = SumOfProducts(products, {one, other}, constant=7)
    for counts in ({}, {one: 2}, {one: 3, other: 1}):
        a, b = counts.get(one, 4), counts.get(other, 6)
        assert cost(counts) == 2 * a * b + 5 * a * a + 5 * (a + b) + 5 + 7
    heads = product(Var(3), one)
    assert SumOfProducts([(heads,)], {one})({one: 2}) == kept_size(heads, {one: 2}) == 6


def test_it_says_what_the_pruned_network_has() -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
    graph = niwaki.trace(model, torch.randn(1, 2, 6, 6))
    smaller = niwaki.prune(model, graph.inputs, 0.5).model
    assert graph.count_params({"0": 4}) == sum(p.numel() for p in smaller.parameters())
    assert graph.count_macs({"0": 4}) == 4 * 2 * 9 * 16 + 4 * 16 * 3
