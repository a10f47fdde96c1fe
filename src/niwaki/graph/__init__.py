"""The graph of a model: its operators, what each axis is made of, and which channels live or die
together.
"""

from niwaki.graph._branches import Branch, branches, branches_of
from niwaki.graph._outline import GroupOutline, Outline, outline
from niwaki.graph._trace import trace
from niwaki.graph._ways_out import ways_out
from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Group, Normaliser, Role, Slice, Writer
from niwaki.graph.masked import Folded, Masked
from niwaki.graph.reasons import Freeze, Reason
from niwaki.graph.ties import Tie
from niwaki.graph.unread import Unread

__all__ = [
    "Branch",
    "Folded",
    "Freeze",
    "Graph",
    "Group",
    "GroupOutline",
    "Masked",
    "Normaliser",
    "Outline",
    "Reason",
    "Role",
    "Slice",
    "Tie",
    "Unread",
    "Writer",
    "branches",
    "branches_of",
    "outline",
    "trace",
    "ways_out",
]
