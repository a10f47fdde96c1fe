"""For mkdocs: entries of the navigation whose page is not there are left out."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    config.nav = _there(config.nav, Path(config.docs_dir))
    return config


def _there(entries: list[Any], docs: Path) -> list[Any]:
    kept = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _there(target, docs)})
        elif (docs / target).is_file():
            kept.append(entry)
    return kept
