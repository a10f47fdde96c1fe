"""The demo: one small network, pruned in many ways, compared in one table and one picture."""

from niwaki.demo.digits import COLUMNS, Best, DemoOutcome, run_demo

__all__ = ["COLUMNS", "Best", "DemoOutcome", "run_demo"]
