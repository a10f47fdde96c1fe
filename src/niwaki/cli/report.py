"""niwaki report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli.console import messages
from niwaki.core.errors import SettingError
from niwaki.core.records import check_file, write_text_atomic
from niwaki.report import as_csv, as_json, read_runs, report_page


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="folders that niwaki wrote, or folders that hold such folders"),
    ],
    out: Annotated[
        Path, typer.Option(help="page to write; its numbers go beside it as .csv and .json")
    ] = Path("report.html"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing files")] = False,
) -> None:
    """One self-contained HTML page of all runs in some folders, with their numbers as CSV and JSON
    beside it.

    niwaki report pruned

    niwaki report runs/*  --out comparison.html
    """
    if out.suffix != ".html":
        raise SettingError(f"--out is a page, .html; got {out}")
    files = [out, out.with_suffix(".csv"), out.with_suffix(".json")]
    marks = (b" niwaki</title>", b"run,model,criterion", b'"runs"')
    for path, mark in zip(files, marks, strict=True):
        check_file(path, overwrite, mark)
    runs, left_out = read_runs(folders)
    for text in left_out:
        messages.print(f"left out: {text}", style="yellow", markup=False)
    for path, text in zip(
        files, (report_page(runs, left_out), as_csv(runs), as_json(runs)), strict=True
    ):
        write_text_atomic(path, text)
    messages.print(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} in {out}", markup=False)
