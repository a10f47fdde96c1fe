"""The model card: a README.md that a model hub shows, with the before/after table and how to load
the network.
"""

from __future__ import annotations

import json

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
        f"# {name}\n",
        f"`{original}`, made smaller by structured pruning{again}: {removed:,} channels were "
        "removed for real, and it is an "
        "ordinary PyTorch module.\n",
        as_markdown(record),
        "\n## Use\n",
        "```python",
        "import niwaki",
        "",
        f"model = niwaki.load({name!r}{'' if blueprint.factory else ', model=original'})",
        "```\n",
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
        "```json",
        json.dumps(record.settings, indent=2, ensure_ascii=False),
        "```\n",
        *(f"* {note}" for note in record.notes),
        f"\nMeasured on {record.hardware.get('gpu') or record.hardware.get('cpu')}, "
        f"{record.hardware.get('threads')} threads, "
        f"torch {record.versions.get('torch')}, niwaki {record.versions.get('niwaki')}, "
        f"{record.created}, seed {record.seed}. "
        "Latencies are medians of one forward of the example batch, before and after in turns; "
        "one MAC is one multiply-add.",
    ]
    return "\n".join(parts) + "\n"
