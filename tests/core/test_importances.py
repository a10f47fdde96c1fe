"""The picture of learned importances: drawn for any number of networks, refused where there is
nothing to draw.
"""

from pathlib import Path

import pytest
from needed import needs

from niwaki.core.errors import DataError
from niwaki.report import importance_histograms

needs("matplotlib")


def test_a_panel_a_network(tmp_path: Path) -> None:
    counts = [0, 1, 5, 2]
    importance_histograms({"one": (counts, counts)}, tmp_path / "one.png")
    importance_histograms(dict.fromkeys("abc", (counts, counts[::-1])), tmp_path / "three.png")
    sizes = [
        int.from_bytes((tmp_path / name).read_bytes()[16:20], "big")
        for name in ("one.png", "three.png")
    ]
    assert sizes == [1200, 1800]


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one network"):
        importance_histograms({}, tmp_path / "x.png")
    with pytest.raises(DataError, match="net: 2 and 3 bins"):
        importance_histograms({"net": ([1, 2], [1, 2, 3])}, tmp_path / "x.png")
