"""Independent pieces of work on one process, on several, or on a Ray cluster, with the same
results.

A piece is a function of this package and arguments that can be sent. A worker that dies takes
nothing with it: its piece is run again elsewhere, up to three times.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal, TypeVar, get_args

import torch

from niwaki.core.errors import MissingExtraError, NiwakiError, SettingError, UnknownNameError

Engine = Literal["local", "ray"]
ATTEMPTS = 4  # the first and three more

R = TypeVar("R")


class LostWorkError(NiwakiError, RuntimeError):
    """Workers died again and again on the same piece of work."""


@dataclass(frozen=True)
class Workers:
    """Where work is done.

    Attributes:
        engine: "local" for processes of this machine; "ray" for a Ray cluster: the one that
            RAY_ADDRESS names or that the process is connected to, else one that is started here.
        count: processes; of a Ray cluster that is started here, its processors.
    """

    engine: Engine = "local"
    count: int = 1

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise UnknownNameError("engine", self.engine, get_args(Engine))
        if self.count < 1:
            raise SettingError(f"workers must be at least 1; got {self.count}")

    def run(
        self, work: Callable[..., R], pieces: Mapping[str, Sequence[Any]]
    ) -> Iterator[tuple[str, R]]:
        """Every piece's name and result, as they are done.

        Raises:
            MissingExtraError: Ray is not installed.
            LostWorkError: workers died on a piece four times.
        """
        if not pieces:
            return iter(())
        if self.engine == "ray":
            return _with_ray(work, pieces, self.count)
        if self.count == 1:
            return ((name, work(*arguments)) for name, arguments in pieces.items())
        return _with_processes(work, pieces, min(self.count, len(pieces)))


def _start(threads: int) -> None:
    torch.set_num_threads(threads)


def _with_processes(
    work: Callable[..., R], pieces: Mapping[str, Sequence[Any]], count: int
) -> Iterator[tuple[str, R]]:
    threads = max(1, torch.get_num_threads() // count)
    left = dict(pieces)
    for _ in range(ATTEMPTS):
        # spawned, not forked: a fork copies torch's threads in whatever state they are
        with ProcessPoolExecutor(count, get_context("spawn"), _start, (threads,)) as pool:
            waiting: dict[Future[R], str] = {}
            try:
                for name, arguments in left.items():
                    waiting[pool.submit(work, *arguments)] = name
                while waiting:
                    for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                        result = done.result()
                        name = waiting.pop(done)
                        left.pop(name)
                        yield name, result
            except BrokenProcessPool:
                continue  # whose fault it was cannot be known: all that is not done is done again
            return
    raise LostWorkError(
        f"worker processes died {ATTEMPTS} times; {', '.join(left)} could not be done. Is there "
        "enough memory?"
    )


def _with_ray(
    work: Callable[..., R], pieces: Mapping[str, Sequence[Any]], count: int
) -> Iterator[tuple[str, R]]:
    with ray_cluster(count) as ray:
        remote = ray.remote(max_retries=ATTEMPTS - 1)(work)
        waiting = {remote.remote(*arguments): name for name, arguments in pieces.items()}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.WorkerCrashedError as error:
                raise LostWorkError(
                    f"Ray workers died {ATTEMPTS} times on {name}; is there enough memory?"
                ) from error
            yield name, result


@contextmanager
def ray_cluster(count: int) -> Iterator[Any]:
    """Ray, connected, and shut down again if it was started here."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    started = not ray.is_initialized()
    if started:
        own = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": count, "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level="error", **own)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
