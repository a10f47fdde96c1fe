"""What a kill leaves is swept, nobody's files are deleted, and limits of the disk are named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from niwaki.core.errors import OutputError
from niwaki.core.records import check_file, check_output, staged_folder, write_text_atomic
from niwaki.core.records.leftovers import DAY, unfinished


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(pid: int, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: pid)
        return unfinished(path, kind)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("how", ["folder", "file", "link"])
def test_what_a_kill_left_is_swept(
    how: str, dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by(dead, tmp_path / "a", "partial", monkeypatch)
    (tmp_path / "mine").mkdir()
    if how == "folder":
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"half")
    elif how == "file":
        left.write_bytes(b"half")
    else:
        left.symlink_to(tmp_path / "mine")
    with staged_folder(tmp_path / "a", overwrite=False):
        pass
    assert names(tmp_path) == ["a", "mine"]
    left = left_by(dead, tmp_path / "b.json", "partial", monkeypatch)
    left.write_text("half")
    write_text_atomic(tmp_path / "b.json", "whole")
    assert names(tmp_path) == ["a", "b.json", "mine"]


def test_an_old_folder_that_a_kill_left_aside_comes_back(
    dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = left_by(dead, tmp_path / "a", "old", monkeypatch)
    with staged_folder(aside, overwrite=False) as folder:
        (folder / "network").write_text("the only copy")
    with pytest.raises(OutputError, match="exists"):
        check_output(tmp_path / "a", overwrite=False)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "network").read_text() == "the only copy"


def test_what_somebody_writes_at_the_same_time_stays(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a", overwrite=False) as first:
        check_output(tmp_path / "a", overwrite=False)
        assert first.exists()
    running = tmp_path / f".b.{'0' * 8}-1.{'0' * 8}.partial"  # of another machine
    running.mkdir()
    (tmp_path / ".b.mine.partial").mkdir()  # not niwaki's kind of name
    check_output(tmp_path / "b", overwrite=False)
    assert running.exists()
    os.utime(running, (time.time() - 2 * DAY,) * 2)
    check_output(tmp_path / "b", overwrite=False)
    assert not running.exists()
    assert (tmp_path / ".b.mine.partial").exists()


@pytest.mark.parametrize("own", ["notes.txt", ".hidden", "runs/table.csv", "model.safetensors.bak"])
def test_overwrite_never_deletes_a_file_of_ones_own(own: str, tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a", overwrite=False) as folder:
        (folder / "plan.json").write_text("{}")
    (tmp_path / "a" / own).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / own).write_text("a year's work")
    with pytest.raises(OutputError, match=rf"holds {own}.*did not write"):
        check_output(tmp_path / "a", overwrite=True)
    assert (tmp_path / "a" / own).read_text() == "a year's work"
    (tmp_path / "a" / own).unlink()
    with staged_folder(tmp_path / "a", overwrite=True):
        pass


def test_a_mark_without_a_list_knows_what_older_versions_wrote(tmp_path: Path) -> None:
    (tmp_path / ".niwaki").write_text(
        "written by niwaki, which may replace this folder with --overwrite\n"
    )
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "load_without_niwaki.cpython-311.pyc").touch()
    check_output(tmp_path, overwrite=True)
    (tmp_path / "mine.csv").touch()
    with pytest.raises(OutputError, match=r"mine\.csv"):
        check_output(tmp_path, overwrite=True)


@pytest.mark.parametrize("content", [b"my own numbers", b"\x89PNG\r\n\x1a\n", b"{}"])
def test_a_file_of_ones_own_is_not_overwritten(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    check_file(path, False, b"mark")
    path.write_bytes(content)
    with pytest.raises(OutputError, match="--overwrite"):
        check_file(path, False, b"mark")
    with pytest.raises(OutputError, match="was not written by niwaki"):
        check_file(path, True, b"mark")
    path.write_bytes(b"a mark, and more")
    check_file(path, True, b"mark")
    with pytest.raises(OutputError, match="is no folder"):
        check_file(tmp_path / "no" / "x.csv", True, b"mark")


LIMITS = {
    errno.ENOSPC: ("No space left on device", "free some space"),
    errno.EDQUOT: ("Disk quota exceeded", "your share of the disk"),
    errno.EFBIG: ("File too large", "ulimit -f"),
}


@pytest.mark.parametrize("code", LIMITS)
@pytest.mark.parametrize("how", ["system", "safetensors", "torch"])
def test_a_limit_of_the_disk_is_one_sentence(code: int, how: str, tmp_path: Path) -> None:
    words, helps = LIMITS[code]
    error: Exception = OSError(code, os.strerror(code))
    if how == "safetensors":
        error = RuntimeError(f"I/O error: {words} (os error {code})")
    elif how == "torch":
        error = RuntimeError(f"[enforce fail at inline_container.cc] .\n{words}")
    with (
        pytest.raises(OutputError, match=f"{words}; .*{helps}") as refused,
        staged_folder(tmp_path / "a", overwrite=False),
    ):
        raise error
    assert "\n" not in str(refused.value)
    assert names(tmp_path) == []


def test_a_real_limit_on_files_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from niwaki.core.records import write_text_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_text_atomic(sys.argv[1], 'x' * 5000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.json")], capture_output=True, text=True
    )
    assert "ulimit -f" in done.stderr.splitlines()[-1]
    assert names(tmp_path) == []
