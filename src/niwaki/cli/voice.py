"""How much is said, and whose code may run: what is said to `niwaki` itself, before or after the
subcommand.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

FLAGS = ("-q", "--quiet", "-v", "--verbose")
WITH_VALUE = ("--trust",)
log = logging.getLogger("niwaki")


@dataclass
class Voice:
    """One call of the command.

    Attributes:
        trust: packages whose code a folder may name.
    """

    quiet: bool = False
    verbose: bool = False
    trust: list[str] = field(default_factory=list)

    def begin(self, quiet: bool, verbose: bool, trust: Sequence[str]) -> None:
        """Take what this call says, and set logging and warnings by it."""
        self.quiet, self.verbose, self.trust = quiet, verbose, list(trust)
        log.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
        log.handlers[:] = [logging.StreamHandler(sys.stderr)]
        log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.propagate = False
        if quiet:
            warnings.simplefilter("ignore")
        elif not verbose:
            warnings.showwarning = _one_line


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


voice = Voice()


def to_front(words: Sequence[str]) -> list[str]:
    """The words of a call with those that are for `niwaki` itself first, wherever they stood.

    >>> to_front(["prune", "net", "--quiet", "--trust", "mine", "--seed", "1"])
    ['--quiet', '--trust', 'mine', 'prune', 'net', '--seed', '1']
    """
    front: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += [word, *left]
            break
        if word in FLAGS or word.startswith(tuple(f"{name}=" for name in WITH_VALUE)):
            front.append(word)
        elif word in WITH_VALUE:
            front += [word, *left[:1]]
            left = left[1:]
        else:
            rest.append(word)
    return [*front, *rest]
