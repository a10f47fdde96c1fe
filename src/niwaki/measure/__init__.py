"""What a network costs and how well it does: one meaning a number, its unit in the name."""

from niwaki.core.records import Evaluation
from niwaki.measure._agreement import agreement
from niwaki.measure._snapshot import compare, snapshot
from niwaki.measure.accuracy import evaluate
from niwaki.measure.latency import Latency, Ratio, cpu_threads, latency_ratio, measure_latency
from niwaki.measure.layers import LayerCost, layer_costs
from niwaki.measure.macs import count_macs
from niwaki.measure.memory import peak_memory
from niwaki.measure.params import count_bytes, count_params
from niwaki.measure.task import Judge, Task

__all__ = [
    "Evaluation",
    "Judge",
    "Latency",
    "LayerCost",
    "Ratio",
    "Task",
    "agreement",
    "compare",
    "count_bytes",
    "count_macs",
    "count_params",
    "cpu_threads",
    "evaluate",
    "latency_ratio",
    "layer_costs",
    "measure_latency",
    "peak_memory",
    "snapshot",
]
