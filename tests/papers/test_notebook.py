"""The notebook runs from top to bottom."""

import re
from pathlib import Path

import pytest
from needed import needs

needs("nbformat", "nbclient", "ipykernel", "accelerate", "sklearn", "matplotlib")

EPOCHS = re.compile(r'("epochs":) \d+')
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    for cell in notebook.cells:  # that it runs can be seen after an epoch
        cell.source = EPOCHS.sub(r"\1 1", cell.source)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    printed = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ())
    )
    assert "validation accuracy" in printed
