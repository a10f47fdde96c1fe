"""The graph of a model: its operators, what each axis is made of, and which channels live or die
together.
"""

from niwaki.graph._branches import Branch, branches, branches_of
from niwaki.graph._outline import outline
from niwaki.graph._trace import trace
from niwaki.graph._ways_out import ways_out
from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Group, Normaliser, Role, Slice, Writer
from niwaki.graph.masked import Folded, Masked
from niwaki.graph.reasons import Freeze, Reason
from niwaki.graph.ties import Tie

__all__ = [
    "Branch",
    "Folded",
    "Freeze",
    "Graph",
    "Group",
    "Masked",
    "Normaliser",
    "Reason",
    "Role",
    "Slice",
    "Tie",
    "Writer",
    "branches",
    "branches_of",
    "outline",
    "trace",
    "ways_out",
]
