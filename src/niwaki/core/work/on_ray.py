"""Pieces of work as tasks of a Ray cluster."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from niwaki.core.errors import MissingExtraError
from niwaki.core.work.lost import Lost

LONGEST = 200  # characters of what Ray says


def on_ray(
    work: Callable[..., Any], pieces: Mapping[str, Sequence[Any]], count: int, attempts: int
) -> Iterator[tuple[str, Any]]:
    """Every piece's name and its result, or `Lost`, as they are done.

    Args:
        count: processors of the cluster, where it is started here.
        attempts: how often Ray begins a piece whose worker dies.
    """
    with ray_cluster(count) as ray:
        remote = ray.remote(max_retries=attempts - 1)(work)
        waiting = {remote.remote(*given): name for name, given in pieces.items()}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _taken(ray, done)


def _taken(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        return Lost.by(error.cause if isinstance(error.cause, Exception) else error)
    except ray.exceptions.RayError as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:LONGEST]
        return Lost(f"its Ray worker failed: {said}")


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
