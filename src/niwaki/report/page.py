"""One self-contained HTML page of all runs: no network, no library; readable on a phone, in the
dark, on paper, by keyboard.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib import resources

from niwaki.core.records import Measurement, change
from niwaki.core.records.comparison import ROWS, taken
from niwaki.report.numbers import as_csv, as_json
from niwaki.report.run_section import run_section
from niwaki.report.runs import Run, pareto
from niwaki.report.scatter import Dot, scatter

MARK = (
    '<svg viewBox="0 0 64 64" aria-hidden="true"><path d="M31 60c1-10-6-13-4-22s9-9 7-20" fill="none" stroke="var(--bark)" '
    'stroke-width="4" stroke-linecap="round"/><path d="M28 40c5-1 9-2 13-6" fill="none" stroke="var(--bark)" stroke-width="3" '
    'stroke-linecap="round"/><g fill="var(--leaf)"><ellipse cx="34" cy="14" rx="15" ry="8"/><ellipse cx="16" cy="30" rx="13" '
    'ry="7"/><ellipse cx="47" cy="33" rx="13" ry="7"/></g></svg>'
)
MANY = 12  # runs from which a page draws what is inside a run only when it is unfolded
PER_PAGE = 25  # rows that a script shows at a time; all of them where none runs
TILES = ("params", "macs", "latency", "accuracy")
SAID = ("model", "criterion", "budget", "compensation")  # what a filter looks at beside the name
SHORT_NAMES = {
    "accuracy": "accuracy",
    "params": "parameters",
    "macs": "MACs",
    "latency": "ms",
    "throughput": "samples/s",
    "bytes": "bytes",
    "peak": "peak memory",
}


def report_page(runs: Sequence[Run], left_out: Sequence[str] = ()) -> str:
    """The page.

    Args:
        left_out: what could not be read, in words.
    """
    front = _front(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} pruned networks"
    files = resources.files("niwaki.report")
    style, script = (
        files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    opened, _ = _featured(runs)
    sections = [
        run_section(run, number, number == opened + 1, later=len(runs) > MANY)
        for number, run in enumerate(runs, 1)
    ]
    parts = [
        (
            f"<header>{MARK}<div><h1>{escape(title)}</h1><p "
            f"class=sub>{escape(_subtitle(runs))}</p></div></header>"
        ),
        "<main>",
        _warnings(left_out),
        _tiles(runs),
        _charts(runs),
        "<h2>Before and after</h2>",
        _filter(runs),
        _table(runs, front),
        _paging(runs),
        f"<h2>{'Inside the network' if len(runs) == 1 else 'Inside each network'}</h2>",
        *sections,
        "</main>",
        _footer(runs),
        '<div id="tip" role="status"></div>',
    ]
    body = "\n".join(part for part in parts if part)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · niwaki</title>"
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        'img-src data:">'
        f'<link rel=icon href="data:,"><style>\n{style}</style></head><body>\n{body}\n'
        f"<script>\n{script}</script></body></html>\n"
    )


def _subtitle(runs: Sequence[Run]) -> str:
    record = runs[0].record
    where = record.hardware.get("gpu") or record.hardware.get("cpu") or "unknown hardware"
    models = dict.fromkeys(str(run.record.settings.get("model") or "a network") for run in runs)
    named = ", ".join(models) if len(models) < 4 else f"{len(models)} architectures"
    threads = record.hardware.get("threads")
    several = "thread" if threads == 1 else "threads"
    return (
        f"{named} · measured on {where}, {threads} {several} · torch {record.versions.get('torch')}"
    )


def _warnings(left_out: Sequence[str]) -> str:
    if not left_out:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in left_out)
    return f'<div class="card warn"><h3>Not in this report</h3><ul>{items}</ul></div><br>'


def _front(runs: Sequence[Run]) -> set[int]:
    """The runs that no other beats in accuracy for their parameters or for their time."""
    scored = [i for i, run in enumerate(runs) if run.record.after.accuracy is not None]
    pairs = [(runs[i].record.before, runs[i].record.after) for i in scored]
    sizes = pareto((after.params, after.accuracy or 0.0) for _, after in pairs)
    timed = [i for i, pair in enumerate(pairs) if all(taken("latency", one) for one in pair)]
    times = pareto(
        (after.latency_ms / before.latency_ms, after.accuracy or 0.0)
        for before, after in (pairs[i] for i in timed)
    )
    return {scored[i] for i in (*sizes, *(timed[i] for i in times))}


def _featured(runs: Sequence[Run]) -> tuple[int, str]:
    """The run that the page opens with, and why that one."""
    if len(runs) == 1:
        return 0, ""
    close = [
        i
        for i, run in enumerate(runs)
        if run.record.after.accuracy is not None
        and run.record.before.accuracy is not None
        and run.record.after.accuracy >= run.record.before.accuracy - 0.01
    ]
    if close:
        return min(
            close, key=lambda i: runs[i].record.after.params
        ), "The smallest within a point of its original"
    if all(run.record.after.accuracy is not None for run in runs):
        return max(
            range(len(runs)), key=lambda i: runs[i].record.after.accuracy or 0
        ), "The most accurate; none is within a point"
    return min(range(len(runs)), key=lambda i: runs[i].record.after.params), "The smallest"


def _tiles(runs: Sequence[Run]) -> str:
    index, why = _featured(runs)
    record = runs[index].record
    tiles = []
    for key in TILES:
        name, _, form = ROWS[key]
        before, after = taken(key, record.before), taken(key, record.after)
        if before is None or after is None:
            continue
        worse = (key == "accuracy" and after < before - 0.01) or (
            key != "accuracy" and after > before
        )
        big = change(key, before, after).replace(" points", "").replace(" less", "")
        label = (
            "points of accuracy"
            if key == "accuracy"
            else f"fewer {name}"
            if key in ("params", "macs")
            else "less latency"
        )
        detail = f"{form.format(before)} → {form.format(after)}"
        emphasis = "<b class=worse>" if worse else "<b>"
        tiles.append(
            "<div class='card "
            f"tile'>{emphasis}{big}</b><span>{label}</span><span>{detail}</span></div>"
        )
    intro = f"<p class=note>{why}: <strong>{escape(runs[index].name)}</strong></p>" if why else ""
    return f"{intro}<div class=tiles>{''.join(tiles)}</div>"


def _charts(runs: Sequence[Run]) -> str:
    scored = [
        (number, run) for number, run in enumerate(runs, 1) if run.record.after.accuracy is not None
    ]
    if not scored:
        return ""
    size = [
        _dot(number, run.name, run.record.after, run.record.after.params) for number, run in scored
    ]
    # times of different runs were taken at different times: only the share of the original's, taken
    # in turns, compares
    time = [
        _dot(
            number,
            run.name,
            run.record.after,
            100 * run.record.after.latency_ms / run.record.before.latency_ms,
        )
        for number, run in scored
        if run.record.before.latency_ms and run.record.after.latency_ms
    ]
    originals = {
        (run.record.before.params, run.record.before.accuracy): run.record.before
        for _, run in scored
    }
    for original in originals.values():
        if original.accuracy is not None:
            size.append(_dot(0, "the original", original, original.params))
            time += [_dot(0, "the original", original, 100)] if time else []
    charts = [scatter(size, "Accuracy against size", "parameters", _short)]
    if time:
        share = "% of the original's time"
        charts.append(scatter(time, "Accuracy against time", share, lambda value: f"{value:g}"))
    legend = (
        "<div class=legend><span><i class=original></i>unpruned</span><span><i class=best></i>on "
        "the Pareto front (no run is both smaller and more accurate)"
        "</span><span><i></i>behind it</span></div>"
    )
    return f"<h2>What accuracy costs</h2><div class=two>{''.join(charts)}</div>{legend}"


def _dot(number: int, name: str, measured: Measurement, cost: float) -> Dot:
    accuracy = 100 * (measured.accuracy or 0.0)
    tip = (
        f"{name}\naccuracy {accuracy:.2f}%\n{measured.params:,} parameters\n{measured.macs:,} MACs"
    )
    tip += f"\n{measured.latency_ms:.2f} ms" if measured.latency_ms else ""
    return Dot(float(cost), accuracy, tip, number, original=number == 0)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {letter}"
    return f"{value:.4g}"


def _filter(runs: Sequence[Run]) -> str:
    """Where rows and sections are picked by what their names and settings say."""
    if len(runs) < 2:
        return ""
    return (
        "<p class=filter><label>Show only runs with <input id=filter type=search "
        "autocomplete=off placeholder='a name, a criterion, …'></label> "
        f"<span id=shown class=note>{len(runs)} runs</span></p>"
    )


def _paging(runs: Sequence[Run]) -> str:
    """Where one turns from page to page of the table; shown by the script that does it."""
    if len(runs) <= PER_PAGE:
        return ""
    turns = (("back", "Previous"), ("on", "Next"), ("all", "All on one page"))
    buttons = "".join(
        f"<button type=button data-turn={turn}>{words}</button>" for turn, words in turns
    )
    return (
        f"<nav class=pages aria-label='pages of runs' data-size={PER_PAGE} hidden>{buttons}"
        "<span class=note role=status></span></nav>"
    )


def _table(runs: Sequence[Run], front: set[int]) -> str:
    """A row a network, numbers short; each original once, before those made of it."""
    keys = [key for key in ROWS if any(taken(key, run.record.after) is not None for run in runs)]
    scores = list(dict.fromkeys(name for run in runs for name in run.record.after.scores))
    scores = [name for name in scores if name != "accuracy" or "accuracy" not in keys]
    names = [*map(escape, scores), *(SHORT_NAMES[key] for key in keys)]
    head = "".join(f"<th scope=col><button type=button>{name}</button></th>" for name in names)
    originals: dict[tuple[object, ...], list[int]] = {}
    for index, run in enumerate(runs):
        before = run.record.before
        facts = (before.params, before.macs, before.accuracy, *before.scores.items())
        originals.setdefault(facts, []).append(index)
    rows = []
    for same in originals.values():
        before = max(
            (runs[i].record.before for i in same), key=lambda one: bool(one.latency_ms)
        )  # one that was timed, where there is one
        whose = "" if len(originals) == 1 else f" of {_numbers(same)}"
        rows.append(
            f"<tr class=unpruned><td class='name left'><i class=original></i>the original{whose}"
            f"</td>{_cells(keys, scores, None, before)}</tr>"
        )
    for index, run in enumerate(runs):
        best = " best" if index in front else ""
        said = [run.name, *(str(run.record.settings.get(key) or "") for key in SAID)]
        rows.append(
            f'<tr data-run="{index + 1}" data-said="{escape(" ".join(said).lower(), quote=True)}">'
            f"<td class='name left'><span class='badge{best}'>{index + 1}</span>{escape(run.name)}"
            f"</td>{_cells(keys, scores, run.record.before, run.record.after)}</tr>"
        )
    return (
        "<div class='card scroll' tabindex=0 role=region aria-label='before and after'><table "
        "class=runs><thead><tr><th scope=col class=left><button type=button>network</button></th>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _numbers(indices: Sequence[int]) -> str:
    """The first few runs by their numbers on the page."""
    named = ", ".join(str(index + 1) for index in indices[:5])
    return named if len(indices) <= 5 else f"{named} and {len(indices) - 5} more"


def _cells(
    keys: Sequence[str], scores: Sequence[str], before: Measurement | None, after: Measurement
) -> str:
    own = [_score_cell(name, before, after) for name in scores]
    return "".join([*own, *(_cell(key, before, after) for key in keys)])


def _score_cell(name: str, before: Measurement | None, after: Measurement) -> str:
    label = f"data-label='{escape(name, quote=True)}'"
    value, old = after.scores.get(name), None if before is None else before.scores.get(name)
    if value is None:
        return f"<td {label} class=none>–</td>"
    changed = "" if old is None else f"<small>{value - old:+.4g}</small>"
    return f"<td {label} data-value='{value:.9g}'>{value:.4g}{changed}</td>"


def _cell(key: str, before: Measurement | None, after: Measurement) -> str:
    form = ROWS[key][2]
    number, old = taken(key, after), None if before is None else taken(key, before)
    label = f"data-label='{SHORT_NAMES[key]}'"
    if number is None:
        return f"<td {label} class=none>–</td>"
    text = f"{number:.2%}" if key == "accuracy" else _short(number)
    changed = "" if old is None else f"<small>{change(key, old, number)}</small>"
    exact = f"data-value='{number:.9g}' title='{form.format(number)}'"
    return f"<td {label} {exact}>{text}{changed}</td>"


def _footer(runs: Sequence[Run]) -> str:
    links = []
    for name, kind, text in (
        ("report.csv", "text/csv", as_csv(runs)),
        ("report.json", "application/json", as_json(runs)),
    ):
        data = base64.b64encode(text.encode()).decode()
        links.append(f'<a download="{name}" href="data:{kind};base64,{data}">{name}</a>')
    return (
        f"<footer><p class=data>The numbers: {' · '.join(links)}</p><p>Latency is the median of "
        "one forward of the example "
        "batch, before and after in turns; bytes are those of parameters and buffers. One MAC is "
        "one "
        "multiply-add. Peak activations are the most bytes of tensors alive at "
        "once in a forward, inputs included, parameters not. Made by niwaki; the page loads "
        "nothing from anywhere.</p></footer>"
    )
