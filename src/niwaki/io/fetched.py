"""Folders that come from the Hugging Face hub, through its own library.

What is fetched is the folder that `save` wrote, and it is read as any folder of a stranger's:
hashes, plan and factory are checked, and no code of it runs.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from niwaki.core.errors import CheckpointError, MissingExtraError
from niwaki.io.manifest import CARD, MANIFEST, OPTIONAL, REQUIRED, STANDALONE

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FETCHED = (MANIFEST, *REQUIRED, *OPTIONAL, CARD, STANDALONE)


def fetch(repo: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a pruned network on the hub, from the library's cache where it is there.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        CheckpointError: the hub cannot be reached, has no such repository, or what it has is no
            network that niwaki saved.
    """
    hub = hub_library()
    try:
        with quiet():
            folder = hub.snapshot_download(
                repo, revision=revision, token=token, allow_patterns=[*FETCHED]
            )
    except Exception as error:
        raise CheckpointError(
            f"there is no folder {repo} here, and the hub could not give it: {why_not(error)}"
        ) from error
    if not (Path(folder) / MANIFEST).exists():
        raise CheckpointError(
            f"{repo} on the hub is no network that niwaki saved (it has no {MANIFEST})"
        )
    return Path(folder)


def is_repo(name: object) -> bool:
    """Whether a text is the name of a repository: user/name.

    >>> is_repo("user/resnet-half"), is_repo("runs/a/b"), is_repo("./runs")
    (True, False, False)
    """
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def hub_library() -> Any:
    """
    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return huggingface_hub


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's warnings about every attempt: the error says it once."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def why_not(error: Exception) -> str:
    """What the library's error means, in a few words."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"OfflineModeIsEnabled"}:
        return "HF_HUB_OFFLINE is set"
    if kinds & {"GatedRepoError"}:
        return "you must be let in first (its page on the hub), and log in: hf auth login"
    if kinds & {"RepositoryNotFoundError"}:
        return "it has none of that name, or it is private (hf auth login)"
    if kinds & {"RevisionNotFoundError"}:
        return "it has no such revision"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "you are not logged in or may not write there (hf auth login)"
    if status is not None:
        return f"it answered with status {status}"
    if isinstance(error, OSError) or kinds & {"TransportError", "LocalEntryNotFoundError"}:
        where = os.environ.get("HF_ENDPOINT", "huggingface.co")
        return f"{where} cannot be reached (no network?)"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
