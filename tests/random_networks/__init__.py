"""Random networks of the kinds of layers, and with the traps, that people's networks have."""

from random_networks.whole import Drawn, drawn

__all__ = ["Drawn", "drawn"]
