"""Processes that need not import torch anew: a server does so once, and forks."""

import multiprocessing
from multiprocessing.context import ForkServerContext

IMPORTED = (
    "accelerate", "niwaki.core.work.processes", "niwaki.measure", "niwaki.training", "pytest",
    "safetensors.torch", "torch._dynamo",
)  # fmt: skip


def context(*_: str) -> ForkServerContext:
    """In place of `multiprocessing.get_context("spawn")`."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(IMPORTED))  # one that is not installed is passed over
    return server
