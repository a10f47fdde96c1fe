"""Drawings of a model's channel groups: a Graphviz file, and a page of its own with who reads whom
as arcs.
"""

from __future__ import annotations

import math
from html import escape

from niwaki.graph import GroupOutline, Outline
from niwaki.graph._outline import count

ROW = 30  # pixels
ARCS = 150


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


def channels_html(outline: Outline) -> str:
    """A page that needs nothing else: a row a group, with arcs from the groups that it is computed
    from.
    """
    rows = "\n".join(_row(group, outline) for group in outline.groups)
    frozen = "\n".join(
        f"<tr><td>{escape(item.layer or 'the model')}</td><td "
        f"class=n>{item.width}</td><td>{escape(str(item.reason))}</td></tr>"
        for item in outline.frozen
    )
    unknown = ", ".join(f"{escape(name)} ({times}×)" for name, times in outline.unknown.items())
    unread = f"<p>{escape(str(outline.unread))}.</p>" if outline.unread else ""
    fixed = (
        "<h2>What keeps its size</h2><div class=scroll><table><thead><tr><th>layer<th "
        "class=n>width<th>why</thead>"
        f"<tbody>{frozen}</tbody></table></div>"
        if frozen
        else ""
    )
    note = f"<p>Operators that niwaki does not know: {unknown}.</p>" if unknown else ""
    height = ROW * len(outline.groups)
    return f"""<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{escape(outline.model)}: channel groups</title><style>{_STYLE}</style></head><body>
<h1>{escape(outline.model)}</h1>
<p>{count(outline.params)} parameters, {count(outline.macs)} multiply-adds a run, {len(outline.groups)} groups of channels that
can be pruned. An arc joins a group to one that is computed from it; dashed where it leads back up, as into a residual
stream.</p>
<div class=scroll><div class=drawing>
<svg width={ARCS} height={height + ROW} viewBox="0 {-ROW} {ARCS} {height + ROW}" role=img aria-label="who reads whom">
{_arcs(outline)}</svg>
<table class=groups><thead><tr><th>group<th class=n>units<th class=n>parameters<th class=n>MACs<th>read by</thead>
<tbody>{rows}</tbody></table></div></div>
{fixed}{note}{unread}
</body></html>
"""


def _row(group: GroupOutline, outline: Outline) -> str:
    share = 100 * group.params / max(1, outline.params)
    others = f" +{len(group.producers) - 1}" if len(group.producers) > 1 else ""
    readers = ", ".join(group.consumers[:3]) + (
        f" +{len(group.consumers) - 3}" if len(group.consumers) > 3 else ""
    )
    writers = escape("written by " + ", ".join(group.producers), quote=True)
    return (
        f'<tr><td title="{writers}">{escape(group.name)}<small>{others}</small></td><td class=n>{group.width}</td>'
        f'<td class=n><span class=bar style="width:{share:.1f}%"></span>{count(group.params)}</td>'
        f'<td class=n>{count(group.macs)}</td><td title="{escape(", ".join(group.consumers), quote=True)}">'
        f"{escape(readers) or '–'}</td></tr>"
    )


def _arcs(outline: Outline) -> str:
    place = {group.name: row for row, group in enumerate(outline.groups)}
    paths = []
    for group in outline.groups:
        for source in group.reads:
            start, end = place[source], place[group.name]
            reach = min(ARCS - 12, 10 + 14 * math.sqrt(abs(end - start)))
            y0, y1 = (ROW * (row + 0.5) for row in (start, end))
            kind, reach = ("back", 0.75 * reach) if end < start else ("on", reach)
            paths.append(
                f'<path class={kind} d="M{ARCS - 4} {y0} C{ARCS - 4 - reach} {y0} {ARCS - 4 - reach} {y1} {ARCS - 4} {y1}">'
                f"<title>{escape(group.name)} is computed from {escape(source)}</title></path>"
            )
    dots = [
        f'<circle cx={ARCS - 4} cy="{ROW * (row + 0.5)}" r=3></circle>' for row in place.values()
    ]
    return "\n".join(paths + dots)


_STYLE = f"""
:root {{
  color-scheme: light dark;
  --ink: #1d2a23; --soft: #66756c; --line: #dfe5e1; --leaf: #2e7d4f; --back: #b26a1f; --page: #fbfcfb;
}}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e5ebe7; --soft: #9aa8a0; --line: #2e3833; --leaf: #6cc08e; --back: #e0a15a; --page: #151a17 }}
}}
body {{
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  margin: 0 auto; padding: 1.2rem; max-width: 70rem;
}}
h1 {{ font-size: 1.5rem; margin: 0 }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }}
p {{ color: var(--soft); max-width: 45rem }}
.scroll {{ overflow-x: auto }}
.drawing {{ display: flex; min-width: 42rem }}
svg {{ flex: none }}
path {{ fill: none; stroke: var(--leaf); stroke-width: 1.4; opacity: .75 }}
path.back {{ stroke: var(--back); stroke-dasharray: 4 3 }}
path:hover {{ stroke-width: 3; opacity: 1 }}
circle {{ fill: var(--ink) }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th {{ text-align: left; color: var(--soft); font-weight: 500 }}
th, td {{ padding: 0 .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }}
.groups tr {{ height: {ROW}px }} .groups th, .groups td {{ height: {ROW}px; box-sizing: border-box; line-height: 1 }}
.n {{ text-align: right; position: relative }} small {{ color: var(--soft) }}
.bar {{ position: absolute; right: .6rem; bottom: 3px; height: 3px; background: var(--leaf); border-radius: 2px }}
td:last-child {{ max-width: 26rem; overflow: hidden; text-overflow: ellipsis }}
"""
