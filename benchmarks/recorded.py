"""The command line of benchmarks that take CPU seconds of one thread: measure into a record, or
print the table of one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic

Table = Callable[[dict[str, Any]], str]


def options(text: str) -> argparse.ArgumentParser:
    """--repeats, --out and --table, described by the first line of a module's docstring."""
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of a record, and stop")
    return parser


def asked(parser: argparse.ArgumentParser, table: Table) -> argparse.Namespace | None:
    """What is to be measured, on one thread; None where a table was asked for, and printed."""
    words = parser.parse_args()
    if words.table:
        print(table(json.loads(words.table.read_text(encoding="utf-8"))))
        return None
    torch.set_num_threads(1)
    return words


def write(record: dict[str, Any], out: Path | None) -> None:
    """Keep a record, with what it was measured by and on; nothing where it is not to be kept."""
    if out is not None:
        origin = {"unit": "CPU seconds, one thread", "versions": versions(), "hardware": hardware()}
        write_text_atomic(out, json.dumps(record | origin, indent=1) + "\n")
