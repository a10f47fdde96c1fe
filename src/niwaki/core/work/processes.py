"""Pieces of work in processes of this machine.

Workers are told one piece at a time, so that it is known whose piece a death is. It is begun again,
in case that was chance, and given up when that is so always; all others go on.
"""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from niwaki.core.work.lost import Lost, tried

Work = Callable[..., Any]


def in_processes(
    work: Work, pieces: Mapping[str, Sequence[Any]], count: int, attempts: int
) -> Iterator[tuple[str, Any]]:
    """Every piece's name and its result, or `Lost`, as they are done.

    Args:
        work: a function of a module; arguments and results can be pickled.
        attempts: how often a piece is begun whose worker dies.
    """
    waiting, deaths = deque(pieces), Counter[str]()
    # spawned, not forked: a fork copies torch's threads in whatever state they are
    context, threads = get_context("spawn"), max(1, torch.get_num_threads() // count)
    hands = [_Hand(context, work, threads) for _ in range(count)]
    try:
        while waiting or any(hand.piece is not None for hand in hands):
            for hand in hands:
                if waiting and hand.piece is None:
                    name = waiting.popleft()
                    hand.give(name, pieces[name])
            for hand in _ready(hands):
                name, result = hand.taken()
                if hand.is_dead:
                    deaths[name] += 1
                    if deaths[name] < attempts:
                        waiting.appendleft(name)
                        continue
                yield name, result
    finally:
        for hand in hands:
            hand.stop()


@dataclass
class _Hand:
    """A worker process, and the piece that it has."""

    context: SpawnContext
    work: Work
    threads: int
    piece: str | None = None
    is_dead: bool = False
    process: BaseProcess = field(init=False)
    line: Connection[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.line, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs, self.work, self.threads))
        self.process.start()
        theirs.close()  # so that the end of the worker is the end of the line

    def give(self, name: str, arguments: Sequence[Any]) -> None:
        if self.is_dead:
            self.replace()
        self.piece = name
        with suppress(OSError):  # it has died; the end of the line says so
            self.line.send(arguments)

    def taken(self) -> tuple[str, Any]:
        name, self.piece = self.piece or "", None
        try:
            return name, self.line.recv()
        except (EOFError, OSError):
            self.is_dead = True
            self.process.join()
            return name, Lost(f"its worker process died (exit code {self.process.exitcode})")

    def replace(self) -> None:
        self.stop()
        self.is_dead = False
        self.__post_init__()

    def stop(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.join()


def _ready(hands: Sequence[_Hand]) -> list[_Hand]:
    """Those whose piece is done, or who died over it; waits for the first."""
    lines = {hand.line: hand for hand in hands if hand.piece is not None}
    return [lines[line] for line in wait(list(lines))]  # type: ignore[index]  # those that it got


def _serve(line: Connection[Any, Any], work: Work, threads: int) -> None:
    """What a worker does until nobody is at the other end."""
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            result = tried(work, line.recv())
            if isinstance(result, Lost) and result.raised is not None:
                result = Lost(result.reason, _sendable(result.raised))
            line.send(result)


def _sendable(error: Exception) -> Exception:
    """The error, or where it does not survive being sent, its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # made here, on the same line
    except Exception:  # whatever a class of the user's does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
