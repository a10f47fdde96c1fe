"""What a network costs and how well it does: one meaning a number, its unit in the name."""

from niwaki.measure.accuracy import Evaluation, evaluate
from niwaki.measure.latency import Latency, measure_latency
from niwaki.measure.macs import count_macs
from niwaki.measure.params import count_bytes, count_params
from niwaki.measure.snapshot import compare, snapshot

__all__ = [
    "Evaluation",
    "Latency",
    "compare",
    "count_bytes",
    "count_macs",
    "count_params",
    "evaluate",
    "measure_latency",
    "snapshot",
]
