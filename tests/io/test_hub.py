"""Networks to a hub and back: a folder stands in for the hub, its library's functions are replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import niwaki
from niwaki.core.errors import CheckpointError, MissingExtraError, OutputError, SettingError
from niwaki.io.fetched import is_repo

hub = pytest.importorskip("huggingface_hub")


class FakeHub:
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Any] = {}

    def create_repo(self, repo: str, *, private: Any, token: Any, exist_ok: bool) -> str:
        assert exist_ok
        self.made[repo] = (private, token)
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        shutil.copytree(folder_path, self.root / repo_id)

    def snapshot_download(self, repo: str, *, allow_patterns: list[str], **_: Any) -> str:
        """As the hub's cache lies on disk: links to blobs."""
        if not (self.root / repo).exists():
            raise hub.errors.RepositoryNotFoundError("404", response=_Answer(404))
        place = self.root / "cache" / "models--x" / "snapshots" / "1"
        place.mkdir(parents=True, exist_ok=True)
        blobs = place.parents[1] / "blobs"
        blobs.mkdir(exist_ok=True)
        for file in (self.root / repo).iterdir():
            if file.name in allow_patterns:
                shutil.copy(file, blobs / file.name)
                (place / file.name).symlink_to(os.path.join("..", "..", "blobs", file.name))
        return str(place)


class _Answer:
    def __init__(self, status_code: int) -> None:
        self.status_code, self.request = status_code, None
        self.headers: dict[str, str] = {}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    stand_in = FakeHub(tmp_path / "hub")
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(hub, name, getattr(stand_in, name))
    monkeypatch.chdir(tmp_path)
    return stand_in


def pruned() -> niwaki.Result:
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn").eval()
    return niwaki.prune(model, torch.randn(2, 1, 8, 8), compensation="none")


def test_there_and_back(fake: FakeHub) -> None:
    result = pruned()
    url = niwaki.push_to_hub(result, "user/digits-half", private=True, token="t")
    assert url == "https://huggingface.co/user/digits-half"
    assert fake.made == {"user/digits-half": (True, "t")}
    card = (fake.root / "user/digits-half/README.md").read_text()
    assert "niwaki.load('user/digits-half')" in card
    assert card.startswith("---\nlibrary_name: pytorch")
    again = niwaki.load("user/digits-half")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(x), result.model(x))
    with pytest.raises(CheckpointError, match="it has none of that name, or it is private"):
        niwaki.load("user/nothing")


def test_a_folder_comes_before_the_hub(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    niwaki.save(pruned(), "runs/pruned")
    monkeypatch.setattr(hub, "snapshot_download", None)
    niwaki.load("runs/pruned")


def test_what_the_hub_has_is_not_trusted(fake: FakeHub) -> None:
    niwaki.push_to_hub(pruned(), "user/digits")
    (fake.root / "user/digits/plan.json").write_text("{}")
    with pytest.raises(CheckpointError, match="was changed after it was saved"):
        niwaki.load("user/digits")
    (fake.root / "user/other").mkdir()
    (fake.root / "user/other/README.md").write_text("hello")
    shutil.rmtree(fake.root / "cache")
    with pytest.raises(CheckpointError, match="user/other on the hub is no network that niwaki"):
        niwaki.load("user/other")


def test_names() -> None:
    assert [is_repo(n) for n in ("a/b", "a", "a/b/c", "./a", "/a", "a/..", "~/b", 3)] == [
        True, False, False, False, False, False, False, False,
    ]  # fmt: skip
    with pytest.raises(SettingError, match="repo= is 'user/name'"):
        niwaki.push_to_hub(pruned(), "digits")


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "not logged in"), (403, "may not write there"), (500, "answered with status 500")],
)
def test_a_hub_that_says_no(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise hub.errors.HfHubHTTPError("no", response=_Answer(status))

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(OutputError, match=words):
        niwaki.push_to_hub(pruned(), "user/digits")


def test_without_a_network_there_is_one_sentence(tmp_path: Path) -> None:
    """In a new process, as the library reads its address when it is imported."""
    code = "import niwaki\ntry: niwaki.load('user/digits')\nexcept Exception as e: print(type(e).__name__, e)"
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **away}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == (
        "CheckpointError there is no folder user/digits here, and the hub could not give it: "
        "http://127.0.0.1:9 cannot be reached (no network?)\n"
    )


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="needs huggingface_hub"):
        niwaki.load("user/digits")
