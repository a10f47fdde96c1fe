"""The subcommands by name. Each is imported when it is called, so that `niwaki --help` needs
neither torch nor time.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# name → where its function is, and the first sentence of what that says of itself (a test holds it)
COMMANDS = {
    "train": (
        "niwaki.cli.train:train",
        "Train a network from scratch, with a penalty that makes it sparse if one is named.",
    ),
    "score": (
        "niwaki.cli.score:score_command",
        "Score a network once, and prune it by these scores as often as you like.",
    ),
    "prune": (
        "niwaki.cli.prune:prune",
        "Prune a trained network, repair it, prove the result and measure it.",
    ),
    "finetune": (
        "niwaki.cli.finetune:finetune",
        "Train a pruned network again, and write it to a folder as niwaki prune does.",
    ),
    "sweep": (
        "niwaki.cli.sweep:sweep",
        "Prune in all combinations of models, criteria, repairs, budgets and seeds, and compare "
        "them.",
    ),
    "sensitivity": (
        "niwaki.cli.sensitivity:sensitivity_command",
        "Prune each group of channels alone, at several ratios, and draw how much the network "
        "loses.",
    ),
    "eval": (
        "niwaki.cli.evaluate:eval_command",
        "Measure one network, pruned or not: accuracy, loss, parameters, MACs, latency, size.",
    ),
    "inspect": (
        "niwaki.cli.inspect:inspect",
        "List the groups of channels that can be pruned, what each costs, and which channels "
        "cannot be pruned and why.",
    ),
    "export": (
        "niwaki.cli.export:export",
        "Write a network for ONNX Runtime or torch.export, run the file, and compare it with the "
        "network.",
    ),
    "report": (
        "niwaki.cli.report:report",
        "One self-contained HTML page of all runs in some folders, with their numbers as CSV and "
        "JSON beside it.",
    ),
    "reproduce": (
        "niwaki.cli.reproduce:reproduce",
        "Run a paper's experiments and print published and measured numbers side by side.",
    ),
    "demo": (
        "niwaki.cli.demo:demo",
        "Train a small network on scikit-learn's digits, prune it in many ways, and compare.",
    ),
}


class Commands(TyperGroup):
    """A group that knows of its commands what its help says, and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=about) for name, (_, about) in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first word names, and the words that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str | None) -> Any:
    """A subcommand with its options."""
    module, _, function = COMMANDS[name or ""][0].partition(":")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(getattr(importlib.import_module(module), function))
    return typer.main.get_command(alone)
