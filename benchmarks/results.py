"""Write docs/results.md again from the tables and records of all papers.

python benchmarks/results.py
"""

from __future__ import annotations

from pathlib import Path

from niwaki.papers.line import markdown
from niwaki.papers.recipe import overview

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
START, END = "<!-- rendered by niwaki.papers.line.markdown -->", "<!-- end -->"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    page = f"{before}{START}\n{markdown(overview())}{END}{after}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
