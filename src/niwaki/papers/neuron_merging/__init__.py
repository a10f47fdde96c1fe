"""Neuron Merging: Compensating for Pruned Neurons (NeurIPS 2020)."""

from niwaki.papers.neuron_merging.recipe import NeuronMerging

__all__ = ["NeuronMerging"]
