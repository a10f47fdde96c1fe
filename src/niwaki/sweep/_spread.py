"""Pieces of work on one process, on several, or on Ray; a worker that dies costs its piece alone.

Workers are told one piece at a time, so that it is known whose piece a death is. It is tried once
more, in case that was chance, and then given up, while all others go on.
"""

from __future__ import annotations

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

from niwaki.methods.mint.spread import Workers, ray_cluster

ATTEMPTS = 2  # the first and one more
Work = Callable[..., Any]
Pieces = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Lost:
    """What stands in the place of a result whose workers died."""

    reason: str


def spread(work: Work, pieces: Pieces, workers: Workers) -> Iterator[tuple[str, Any]]:
    """Every piece's name and its result, or `Lost`, as they are done.

    Args:
        work: a function of a module; arguments and results can be pickled.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    if not pieces:
        return iter(())
    if workers.engine == "ray":
        return _on_ray(work, pieces, workers.count)
    if workers.count == 1:
        return ((name, work(*arguments)) for name, arguments in pieces.items())
    return _in_processes(work, pieces, min(workers.count, len(pieces)))


def _in_processes(work: Work, pieces: Pieces, count: int) -> Iterator[tuple[str, Any]]:
    waiting, deaths = deque(pieces), Counter[str]()
    # spawned, not forked: a fork copies torch's threads in whatever state they are
    context, threads = get_context("spawn"), max(1, torch.get_num_threads() // count)
    hands = [_Hand(context, work, threads) for _ in range(count)]
    try:
        while waiting or any(hand.piece for hand in hands):
            for hand in hands:
                if waiting and hand.piece is None:
                    name = waiting.popleft()
                    hand.give(name, pieces[name])
            for hand in _ready(hands):
                name, result = hand.taken()
                if isinstance(result, Lost):
                    deaths[name] += 1
                    hand.replace()
                    if deaths[name] < ATTEMPTS:
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
    process: BaseProcess = field(init=False)
    line: Connection[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.line, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs, self.work, self.threads))
        self.process.start()
        theirs.close()  # so that the end of the worker is the end of the line

    def give(self, name: str, arguments: Sequence[Any]) -> None:
        self.piece = name
        with suppress(OSError):  # it has died; the end of the line says so
            self.line.send(arguments)

    def taken(self) -> tuple[str, Any]:
        name, self.piece = self.piece or "", None
        try:
            return name, self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            return name, Lost(f"its worker process died (exit code {self.process.exitcode})")

    def replace(self) -> None:
        self.stop()
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
            line.send(work(*line.recv()))


def _on_ray(work: Work, pieces: Pieces, count: int) -> Iterator[tuple[str, Any]]:
    with ray_cluster(count) as ray:
        remote = ray.remote(max_retries=ATTEMPTS - 1)(work)
        waiting = {remote.remote(*arguments): name for name, arguments in pieces.items()}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(done)
            try:
                yield name, ray.get(done)
            except ray.exceptions.RayError as error:
                yield name, Lost(f"its Ray worker failed: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
