"""Write docs/results.md, and MINT's table with its authors' settings, again from tables and records.

python benchmarks/results.py
"""

from __future__ import annotations

from pathlib import Path

from niwaki.papers import mint
from niwaki.papers.line import markdown
from niwaki.papers.mint import recipe, rendering
from niwaki.papers.recipe import overview

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
START, END = "<!-- rendered by niwaki.papers.line.markdown -->", "<!-- end -->"


AUTHORS = "mnist-mlp-authors"
MINT_PAGES = (PAGE.with_name("mint.md"), Path(mint.__file__).with_name("README.md"))


def between(page: Path, start: str, rendered: str) -> None:
    """Put a rendering between two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(start)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{start}\n{rendered.strip()}\n{END}{after}", encoding="utf-8")


def main() -> None:
    between(PAGE, START, markdown(overview()))
    table = rendering.markdown(rendering.committed(), AUTHORS, recipe.tables()[AUTHORS])
    for page in MINT_PAGES:
        between(page, f"<!-- {AUTHORS} -->", table)


if __name__ == "__main__":
    main()
