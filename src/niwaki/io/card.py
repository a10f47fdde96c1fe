"""The model card: a README.md that a model hub shows, with the before/after table and how to load
the network.
"""

from __future__ import annotations

import json
import re

from niwaki.core.records import Record, as_markdown
from niwaki.io.blueprint import Blueprint

FRONT = """---
library_name: pytorch
tags:
- pruning
- structured-pruning
- niwaki
---
"""


def model_card(name: str, record: Record, blueprint: Blueprint, blocks: bool = False) -> str:
    """The card as Markdown.

    Args:
        blocks: the network has layers of which only blocks are kept.
    """
    original = blueprint.factory or "a network"
    removed = sum(
        kept.width - len(kept.units) for plan in blueprint.steps for kept in plan.values()
    )
    again = " in several steps" if len(blueprint.steps) > 1 else ""
    parts = [
        FRONT,
        f"# {plain(name)}\n",
        f"{code(original)}, made smaller by structured pruning{again}: {removed:,} channels were "
        "removed for real, and it is an "
        "ordinary PyTorch module.\n",
        as_markdown(record),
        "\n## Use\n",
        fenced(
            "import niwaki\n\nmodel = niwaki.load("
            f"{name!r}{'' if blueprint.factory else ', model=original'})",
            "python",
        ),
        "",
        "Without niwaki, with torch and safetensors alone, in this folder:\n",
        "```python",
        "from load_without_niwaki import load_pruned",
        "",
        'model = load_pruned(".", original)  # the unpruned network, with any weights',
        "```\n",
        *(
            ["Layers of blocks become ordinary ones there, with zeros where a block is gone.\n"]
            if blocks
            else []
        ),
        "## How it was made\n",
        fenced(json.dumps(record.settings, indent=2, ensure_ascii=False), "json"),
        "",
        *(f"* {plain(note)}" for note in record.notes),
        f"\nMeasured on {plain(record.hardware.get('gpu') or record.hardware.get('cpu'))}, "
        f"{plain(record.hardware.get('threads'))} threads, "
        f"torch {plain(record.versions.get('torch'))}, "
        f"niwaki {plain(record.versions.get('niwaki'))}, "
        f"{plain(record.created)}, seed {record.seed}. "
        "Latencies are medians of one forward of the example batch, before and after in turns; "
        "one MAC is one multiply-add.",
    ]
    return "\n".join(parts) + "\n"


def plain(text: object) -> str:
    """Text as it is: no mark of Markdown or HTML in it means anything, and it stays on one line.

    >>> plain("a*b <i>")
    'a\\\\*b &lt;i&gt;'
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!$])", r"\\\1", line)


def code(text: object) -> str:
    """A piece of code within a line, whatever backticks it holds."""
    line = " ".join(str(text).split())
    if "`" not in line:
        return f"`{line}`"
    ticks = "`" * (_longest(line) + 1)
    return f"{ticks} {line} {ticks}"


def fenced(text: str, language: str) -> str:
    """A block of code, between more backticks than it holds."""
    ticks = "`" * max(3, _longest(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
