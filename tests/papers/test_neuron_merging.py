"""Neuron Merging's published numbers, from the authors' checkpoints on the real data."""

from pathlib import Path

import torch

import niwaki
from niwaki.papers.neuron_merging.recipe import NeuronMerging
from niwaki.papers.recipe import Places

LENET = {
    ("prune", 0.5): 88.40,
    ("prune", 0.6): 85.17,
    ("prune", 0.7): 71.26,
    ("prune", 0.8): 66.76,
    ("merge", 0.5): 88.69,
    ("merge", 0.6): 86.92,
    ("merge", 0.7): 82.75,
    ("merge", 0.8): 80.02,
}


def test_lenet_numbers_to_the_last_digit(shared_root: Path) -> None:
    places = Places(shared_root / "data", shared_root / "checkpoints")
    outcome = NeuronMerging().run("lenet-300-100", places, lambda _: None)
    measured = {
        (cell.compensation, cell.ratio): cell.measured
        for cell in outcome.cells
        if cell.criterion == "l1"
    }
    assert measured == LENET
    assert outcome.cells[0].measured == 89.80
    assert all(
        cell.published == cell.measured for cell in outcome.cells if cell.published is not None
    )


def test_resnet56_merge_is_ahead_of_prune(shared_root: Path, few_images: Path) -> None:
    """On the first 1,000 test images, at the two ratios between which plain pruning breaks down."""
    model = niwaki.models.build("resnet56:shortcut=projection").eval()
    niwaki.load_weights(model, shared_root / "checkpoints" / "resnet56.cifar10.pth.tar")
    test = niwaki.data.load("cifar10", few_images).split("test")
    graph = niwaki.trace(model, niwaki.models.example_inputs(model))
    selection = niwaki.Selection(only=("layer*.conv1",), rounding="floor")
    for ratio, gap in ((0.3, 0.03), (0.5, 0.10)):
        plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), ratio, selection).plan
        assert len(plan) == 27
        accuracy = {}
        for name in ("none", "merge"):
            mixings = niwaki.compensate(niwaki.Cut(graph, plan), name).mixings
            pruned = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
            pruned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
            accuracy[name] = niwaki.evaluate(pruned, test.batches(50, limit=1000)).accuracy
        assert accuracy["merge"] > accuracy["none"] + gap
