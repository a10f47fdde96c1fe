"""Pruned networks to the Hugging Face hub, through its library; `niwaki.load` brings them back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from niwaki.core.errors import OutputError, SettingError
from niwaki.io.artefact import Pruned, save
from niwaki.io.fetched import hub_library, is_repo, quiet, why_not
from niwaki.io.manifest import CARD


def push_to_hub(
    result: Pruned,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "A network pruned with niwaki",
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """Save a pruned network, and put it on the Hugging Face hub with its model card.

    Args:
        repo: "user/name"; it is made where there is none.
        private: of a repository that is made; the hub's own default without it.
        token: the one that `hf auth login` left, without it.
        message: of the commit.
        model, arguments: what builds the original, as for `niwaki.save`.

    Returns:
        the address of the repository.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        SettingError: `repo` is no name of a repository.
        OutputError: the hub cannot be reached, or does not let you write there.
        CheckpointError: as of `niwaki.save`.
    """
    if not is_repo(repo):
        raise SettingError(f"repo= is 'user/name', as the hub writes it; got {repo!r}")
    hub = hub_library()
    with tempfile.TemporaryDirectory() as place:
        folder = save(result, Path(place) / repo.rpartition("/")[2], model=model,
                      arguments=arguments)  # fmt: skip
        card = (folder / CARD).read_text(encoding="utf-8")
        short = f"niwaki.load({folder.name!r}"
        (folder / CARD).write_text(card.replace(short, f"niwaki.load({repo!r}"), encoding="utf-8")
        try:
            with quiet():
                url = hub.create_repo(repo, private=private, token=token, exist_ok=True)
                hub.upload_folder(
                    repo_id=repo, folder_path=folder, token=token, commit_message=message
                )
        except Exception as error:
            raise OutputError(
                f"{repo} could not be written on the hub: {why_not(error)}; niwaki.save keeps the "
                "network here"
            ) from error
    return str(url)
