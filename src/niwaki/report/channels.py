"""A model's channel groups as a Graphviz file."""

from __future__ import annotations

from niwaki.core.records import Outline, count


def channels_dot(outline: Outline) -> str:
    """The groups as a directed graph in the DOT language: an edge from every group to those
    computed from it.
    """
    lines = [
        f"digraph {_quoted(outline.model)} {{",
        '  rankdir="LR"; node [shape=box, fontname="sans-serif"];',
    ]
    for group in outline.groups:
        label = f"{group.name}\n{group.width} units\n{count(group.params)} params, {count(group.macs)} MACs"
        lines.append(f"  {_quoted(group.name)} [label={_quoted(label)}];")
        lines += [f"  {_quoted(source)} -> {_quoted(group.name)};" for source in group.reads]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
