"""niwaki demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.console import messages, results, table
from niwaki.core.records import change, check_output
from niwaki.papers.digits.demo import COLUMNS, run_demo


def demo(
    out: Annotated[Path, typer.Option(help="folder for the picture and the pruned network")] = Path(
        "niwaki-demo"
    ),
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Train a small network on scikit-learn's digits, prune it in many ways, and compare. No
    download, under two minutes.

    niwaki demo --out niwaki-demo
    """
    check_output(out, overwrite)
    outcome = run_demo(out, seed=seed, overwrite=overwrite, say=messages.print)
    results.print(
        table("digits-cnn on the test digits, by selection + repair", COLUMNS, outcome.rows)
    )
    best = outcome.best
    results.print(
        f"{best.label}: parameters {change('params', best.before.params, best.after.params)}, "
        f"accuracy {best.before.accuracy:.2%} → {best.after.accuracy:.2%}",
        markup=False,
    )
    results.print(f"picture:        {outcome.picture}", markup=False)
    results.print(
        f"pruned network: {outcome.artefact}  (niwaki.load({str(outcome.artefact)!r}))",
        markup=False,
    )
