"""The demo: a small network on handwritten digits, trained, pruned and compared in two minutes."""
