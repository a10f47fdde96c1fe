"""A model's channel groups as a page of its own: a row a group, who reads whom as arcs, and what is
in a group once its name is clicked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from importlib import resources

from niwaki.core.records import GroupOutline, Outline, count

ROW = 30  # pixels, as in channels.css
ARCS = 150


def channels_html(outline: Outline) -> str:
    """A page that needs nothing else."""
    files = resources.files("niwaki.report")
    style, script = (
        files.joinpath(name).read_text(encoding="utf-8") for name in ("channels.css", "channels.js")
    )
    rows = "\n".join(_row(number, group, outline) for number, group in enumerate(outline.groups))
    details = "\n".join(
        _detail(number, group, outline) for number, group in enumerate(outline.groups)
    )
    height = ROW * len(outline.groups)
    return f"""<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{escape(outline.model)}: channel groups</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
{style}</style></head><body><main>
<h1>{escape(outline.model)}</h1>
<p>{count(outline.params)} parameters, {count(outline.macs)} multiply-adds a run, {len(outline.groups)} groups of channels that
can be pruned. A group's name shows the layers in it. An arc joins a group to one that is computed from it; dashed where it leads back
up, as into a residual stream.</p>
<div class=scroll tabindex=0 role=region aria-label="groups of channels"><div class=drawing>
<svg width={ARCS} height={height + ROW} viewBox="0 {-ROW} {ARCS} {height + ROW}" role=img aria-label="who reads whom">
{_arcs(outline)}</svg>
<table class=groups><thead><tr><th>group<th class=n>units<th class=n>parameters<th class=n>MACs<th>read by</thead>
<tbody>{rows}</tbody></table></div></div>
{details}
{_fixed(outline)}{_remarks(outline)}
</main><script>
{script}</script></body></html>
"""


def _row(number: int, group: GroupOutline, outline: Outline) -> str:
    share = 100 * group.params / max(1, outline.params)
    others = f" +{len(group.producers) - 1}" if len(group.producers) > 1 else ""
    readers = ", ".join(group.consumers[:3]) + (
        f" +{len(group.consumers) - 3}" if len(group.consumers) > 3 else ""
    )
    button = (
        f"<button type=button aria-expanded=false aria-controls=group-{number} data-group={number}>"
        f"{escape(group.name)}</button>"
    )
    return (
        f"<tr><td>{button}<small>{others}</small></td><td class=n>{group.width}</td>"
        f'<td class=n><span class=bar style="width:{share:.1f}%"></span>{count(group.params)}</td>'
        f"<td class=n>{count(group.macs)}</td><td>{escape(readers) or '–'}</td></tr>"
    )


def _detail(number: int, group: GroupOutline, outline: Outline) -> str:
    """What is in a group, and what it costs."""
    facts = [
        ("units", f"{group.width}"),
        ("parameters", _share(group.params, outline.params)),
        ("multiply-adds", _share(group.macs, outline.macs)),
        ("written by", _listed(group.producers)),
        ("passed on by", _listed(group.carriers)),
        ("read by", _listed(group.consumers)),
        ("computed from", _listed(group.reads)),
    ]
    shown = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)
    name = escape(group.name, quote=True)
    return (
        f'<section class=detail id=group-{number} tabindex=0 aria-label="{name}">'
        f"<h2>{name}<button type=button class=close>close</button></h2><dl>{shown}</dl></section>"
    )


def _share(number: int, whole: int) -> str:
    return f"{count(number)}, {number / max(1, whole):.1%} of the model"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(escape, names)) or "–"


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
                f'<path class={kind} data-ends="{start} {end}" '
                f'd="M{ARCS - 4} {y0} C{ARCS - 4 - reach} {y0} {ARCS - 4 - reach} {y1} {ARCS - 4} {y1}">'
                f"<title>{escape(group.name)} is computed from {escape(source)}</title></path>"
            )
    dots = [
        f'<circle cx={ARCS - 4} cy="{ROW * (row + 0.5)}" r=3></circle>' for row in place.values()
    ]
    return "\n".join(paths + dots)


def _fixed(outline: Outline) -> str:
    """What keeps its size, and why."""
    if not outline.frozen:
        return ""
    rows = "\n".join(
        f"<tr><td>{escape(item.layer or 'the model')}</td><td "
        f"class=n>{item.width}</td><td>{escape(str(item.reason))}</td></tr>"
        for item in outline.frozen
    )
    return (
        "<h2>What keeps its size</h2><div class=scroll tabindex=0 role=region "
        "aria-label='what keeps its size'><table class=why><thead><tr><th>layer<th "
        f"class=n>width<th>why</thead><tbody>{rows}</tbody></table></div>"
    )


def _remarks(outline: Outline) -> str:
    """What can be done about that, and what niwaki does not know."""
    unknown = ", ".join(f"{escape(name)} ({times}×)" for name, times in outline.unknown.items())
    said = [
        *map(escape, outline.ways_out),
        *([f"Operators that niwaki does not know: {unknown}."] if unknown else []),
        *([f"{escape(str(outline.unread))}."] if outline.unread else []),
    ]
    return "".join(f"<p>{text}</p>" for text in said)
