"""Contracts that a method or a network of your own can be held to, as niwaki's own are.

Put one line into a test of yours:

    niwaki.testing.check_criterion(MyCriterion())
    niwaki.testing.check_compensation("my-repair:strength=0.5")
    niwaki.testing.check_trace(MyNetwork(), torch.randn(2, 3, 32, 32))

Each raises an `AssertionError` that names the rule that is broken.
"""

from niwaki.testing.of_compensations import check_compensation
from niwaki.testing.of_criteria import check_criterion
from niwaki.testing.of_networks import check_trace

__all__ = ["check_compensation", "check_criterion", "check_trace"]
