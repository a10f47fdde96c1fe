"""Records of runs that were made: one JSON file a cell, all that a table shows and all that is
needed to make it again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic
from niwaki.papers.line import table_row

SCHEMA = 1


@dataclass(frozen=True)
class CellRun:
    """One cell of the paper's tables: a network as trained, or pruned and fine-tuned.

    Attributes:
        removed: share of the prunable filters; 0: the network as trained.
        test: accuracy in percent on the test set, of the epoch that validation chose.
        validation: accuracy in percent of that epoch.
        untuned: accuracy in percent on the test set, as pruned, before fine-tuning.
        kept: layer → filters that stayed.
        curve: epoch by epoch: training loss, training accuracy and validation accuracy (shares).
        importances: counts of filters by importance, 50 equal bins from 0 to 1 (the last holds all
            above).
        importances_before: the same at the start of training; empty for pruned networks.
    """

    experiment: str
    method: str
    removed: float
    seed: int
    budget: str
    test: float
    validation: float
    params: int
    macs: int
    settings: dict[str, Any]
    curve: list[list[float]]
    seconds: float
    untuned: float | None = None
    kept: dict[str, int] = field(default_factory=dict)
    importances: list[int] = field(default_factory=list)
    importances_before: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    hardware: dict[str, Any] = field(default_factory=hardware)
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        what = f"{self.experiment}-{self.method}-{round(100 * self.removed)}"
        return f"{what}-{self.budget}-seed{self.seed}"

    def write(self, folder: Path) -> Path:
        """Into a folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        lines = [
            f"  {json.dumps(key)}: {json.dumps(value)}"
            for key, value in dataclasses.asdict(self).items()
        ]
        write_text_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")
        return path


def read(path: Any) -> CellRun:
    """A record back from its file."""
    return CellRun(**json.loads(path.read_text(encoding="utf-8")))


def committed() -> list[CellRun]:
    """The records that come with niwaki, by name."""
    folder = resources.files("niwaki.papers.rni").joinpath("records")
    files = sorted(
        (path for path in folder.iterdir() if path.name.endswith(".json")),
        key=lambda path: path.name,
    )
    return [read(path) for path in files]


def markdown(runs: Iterable[CellRun], experiment: str, table: Mapping[str, Any]) -> str:
    """A Markdown table of one experiment: published and measured accuracy by method, a row for each
    budget that has a record; a method without any has one empty row.

    Args:
        table: the experiment's entry in tables.toml.
    """
    by_cell: dict[tuple[str, str, float], list[CellRun]] = {}
    for run in runs:
        if run.experiment == experiment:
            by_cell.setdefault((run.budget, run.method, run.removed), []).append(run)
    shares = table["removed"]
    titles = ["as trained" if share == 0 else f"{share:.0%} pruned, fine-tuned" for share in shares]
    lines = [table_row("accuracy %", *titles), "|---|" + "---|" * len(shares)]
    for method, given in table["methods"].items():
        if "published" in given:
            numbers = (f"{number:.2f}" for number in given["published"])
            lines.append(table_row(f"{method}, published", *numbers))
        known = {budget for budget, name, _ in by_cell if name == method} or {"full"}
        for budget in (name for name in table["budgets"] if name in known):
            short = "" if budget == "full" else f" ({budget})"
            cells = (_measured(by_cell.get((budget, method, share), [])) for share in shares)
            lines.append(table_row(f"{method}, measured{short}", *cells))
    return "\n".join(lines)


def _measured(runs: list[CellRun]) -> str:
    if not runs:
        return ""
    values = [run.test for run in runs]
    mean = f"{sum(values) / len(values):.2f}"
    return (
        mean
        if len(values) == 1
        else f"{mean} ({min(values):.2f} to {max(values):.2f}, {len(values)} seeds)"
    )
