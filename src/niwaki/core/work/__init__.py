"""Independent pieces of work on one process, on several, or on a Ray cluster, with the same
results.

A piece is a function of a module and arguments that can be sent. Who works on it cannot matter to
what comes out, and what a worker's death costs is the caller's to choose: `Workers.run` ends with
it, `Workers.try_each` goes on without that piece.
"""

from niwaki.core.work.lost import Lost, LostWorkError
from niwaki.core.work.workers import Engine, Workers

__all__ = ["Engine", "Lost", "LostWorkError", "Workers"]
