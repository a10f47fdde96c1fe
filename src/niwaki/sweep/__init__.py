"""Sweeps: every combination of models, criteria, repairs, budgets and seeds, one cell each.

A cell that has a record is not run again, a cell that fails leaves its reason and nothing else, and
who runs them (this process, several, or Ray) cannot matter to what comes out.
"""

from niwaki.core.work import Workers
from niwaki.sweep.cell import failed, measured
from niwaki.sweep.folder import SweepFolder
from niwaki.sweep.front import front_of, measures_of
from niwaki.sweep.grid import Cell, Common, Grid
from niwaki.sweep.run import Board, run_cells
from niwaki.sweep.words import read_sweep

__all__ = [
    "Board",
    "Cell",
    "Common",
    "Grid",
    "SweepFolder",
    "Workers",
    "failed",
    "front_of",
    "measured",
    "measures_of",
    "read_sweep",
    "run_cells",
]
