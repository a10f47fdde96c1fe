"""Write docs/results.md, RNI's tables, and MINT's with its authors' settings, again from tables and records.

python benchmarks/results.py
"""

from __future__ import annotations

from pathlib import Path

from niwaki.papers import mint
from niwaki.papers.line import markdown
from niwaki.papers.mint import recipe, rendering
from niwaki.papers.recipe import overview
from niwaki.papers.rni import runs
from niwaki.papers.rni.recipe import tables as rni_tables

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
RNI = PAGE.with_name("rni.md")
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
    for name, entry in rni_tables().items():
        between(RNI, f"<!-- {name} -->", runs.markdown(runs.committed(), name, entry))


if __name__ == "__main__":
    main()
