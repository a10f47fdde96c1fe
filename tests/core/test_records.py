"""Records survive the round trip and refuse nonsense; output folders are complete or absent."""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from niwaki.core.errors import NiwakiError, OutputError
from niwaki.core.provenance import hardware, versions
from niwaki.core.records import (
    Measurement,
    Record,
    RecordError,
    check_output,
    staged_folder,
    write_text_atomic,
)
from niwaki.core.records.overwriting import MARK

FULL = Measurement(accuracy=0.93, loss=0.21, params=1000, macs=5000, latency_ms=1.5, bytes=4000)
SMALL = replace(FULL, accuracy=None, loss=None, params=500, latency_spread_ms=0.25, samples=None)


def make_record() -> Record:
    settings = {"criterion": "l1", "budget": {"params": 0.5}, "layers": ["a", "b"]}
    return Record(
        FULL,
        SMALL,
        settings=settings,
        seed=3,
        seconds={"trace": 0.5, "shrink": 1},
        notes=("fc is frozen",),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MARK)


def fail_halfway(target: Path, error: type[BaseException]) -> None:
    with staged_folder(target, overwrite=True) as folder:
        (folder / "half").write_text("x")
        raise error


def test_record_round_trip_is_exact() -> None:
    record = make_record()
    assert Record.from_json(record.to_json()) == record


def test_record_json_holds_what_readers_rely_on() -> None:
    data = json.loads(make_record().to_json())
    for side in ("before", "after"):
        assert {"accuracy", "loss", "params", "macs", "latency_ms", "bytes"} <= data[side].keys()
    assert data["versions"].keys() == {"niwaki", "torch", "python", "numpy"}
    assert data["hardware"].keys() == {"cpu", "cores", "threads", "gpu", "memory_bytes"}
    assert data["seed"] == 3
    assert data["seconds"] == {"trace": 0.5, "shrink": 1}
    assert data["created"].endswith("+00:00")
    assert data["schema"] == 1


def test_environment_is_read_from_this_machine() -> None:
    assert all(versions().values())
    machine = hardware()
    assert machine["cpu"]
    assert isinstance(machine["threads"], int)
    assert machine["threads"] >= 1


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(make_record().to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "run/record.json is not JSON"),
        ("[1]", "must be a JSON object; it is a list"),
        (changed(lambda d: d.pop("seed")), "lacks 'seed'"),
        (changed(lambda d: d["after"].pop("macs")), "after lacks 'macs'"),
        (changed(lambda d: d.update(colour="red")), "unknown keys 'colour'"),
        (
            changed(lambda d: d["before"].update(params=1.5)),
            "before: params must be int; it is the number 1.5",
        ),
        (
            changed(lambda d: d["before"].update(params=True)),
            "params must be int; it is true or false",
        ),
        (
            changed(lambda d: d["before"].update(accuracy="high")),
            "accuracy must be float; it is a text",
        ),
        (
            changed(lambda d: d["before"].update(latency_ms=float("nan"))),
            "latency_ms must be float",
        ),
        (changed(lambda d: d.update(notes=["a", 1])), "notes must be str"),
        (changed(lambda d: d.update(seconds=[1.0])), "seconds must be dict; it is a list"),
        (changed(lambda d: d.update(schema=2)), "has schema 2; this niwaki reads schema 1"),
    ],
)
def test_bad_record_is_refused_and_says_why(text: str, complaint: str) -> None:
    with pytest.raises(RecordError) as caught:
        Record.from_json(text, "run/record.json")
    assert complaint in str(caught.value)
    assert isinstance(caught.value, NiwakiError)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_record_that_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(RecordError, match="'settings' of the record"):
        replace(make_record(), settings={"x": value}).to_json()


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_text_atomic(path, "old")
    write_text_atomic(path, "néw")
    assert path.read_text(encoding="utf-8") == "néw"
    assert names(tmp_path) == ["plan.json"]


def test_text_into_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*plan\.json: No such file"):
        write_text_atomic(tmp_path / "no" / "plan.json", "x")
    assert names(tmp_path) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    write_text_atomic(path, "old")

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_staged_folder_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "a"
    with staged_folder(target, overwrite=False) as folder:
        (folder / "plan.json").write_text("{}")
        assert not target.exists()
        assert folder.parent == target.parent
    assert names(target) == ["plan.json"]
    assert names(target.parent) == ["a"]


def test_staged_folder_is_as_open_to_others_as_any_new_folder(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a", overwrite=False):
        pass
    (tmp_path / "b").mkdir()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "b").stat().st_mode
    )


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_or_interrupt_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail_halfway(tmp_path / "runs" / "a", error)
    assert names(tmp_path) == []


def make_old(folder: Path) -> Path:
    folder.mkdir()
    (folder / "old").write_text("old")
    (folder / MARK).write_text("written by niwaki:\n  old\n")
    return folder


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    target = make_old(tmp_path / "a")
    with pytest.raises(OutputError, match=r"a exists; pass --overwrite"):
        check_output(target, overwrite=False)
    with pytest.raises(OutputError, match="exists"), staged_folder(target, overwrite=False):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["a"]
    assert names(target) == ["old"]


def test_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(OutputError, match="exists"), staged_folder(target, overwrite=False):
        make_old(target)
    assert names(tmp_path) == ["a"]
    assert names(target) == ["old"]


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = make_old(tmp_path / "a")
    with staged_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("new")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_overwrite_keeps_the_old_folder_on_failure(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = make_old(tmp_path / "a")
    with pytest.raises(error):
        fail_halfway(target, error)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["a"]


def test_overwrite_brings_the_old_folder_back_when_the_swap_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_old(tmp_path / "a")
    rename = Path.rename

    def fails_on_the_new_one(self: Path, other: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fails_on_the_new_one)
    with pytest.raises(KeyboardInterrupt), staged_folder(target, overwrite=True):
        pass
    assert names(target) == ["old"]
    assert names(tmp_path) == ["a"]


def test_overwrite_goes_through_a_link(tmp_path: Path) -> None:
    target = make_old(tmp_path / "a")
    (tmp_path / "link").symlink_to(target)
    with staged_folder(tmp_path / "link", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert names(target) == ["new"]


def test_overwrite_spares_folders_that_niwaki_did_not_write(tmp_path: Path) -> None:
    target = make_old(tmp_path / "a")
    (target / MARK).unlink()
    with pytest.raises(OutputError, match="was not written by niwaki"):
        check_output(target, overwrite=True)
    (target / "old").unlink()
    check_output(target, overwrite=True)  # nothing to lose in an empty one


def test_overwrite_spares_files_and_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_output(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="is not overwritten"):
        check_output(".", overwrite=True)
    with pytest.raises(OutputError, match="is not overwritten"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is a file, so"):
        check_output(tmp_path / "file" / "a", overwrite=False)


def test_unwritable_parent_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "os.access", lambda *_: False
    )  # root may write anywhere, whatever the mode bits say
    with pytest.raises(OutputError, match=r"cannot be written, so .*a cannot be created"):
        check_output(tmp_path / "runs" / "a", overwrite=False)


@pytest.mark.parametrize("kind", ["os", "library"])
def test_full_disk_is_an_output_error(tmp_path: Path, kind: str) -> None:
    error: Exception = OSError(errno.ENOSPC, "No space left on device")
    if kind == "library":
        error = RuntimeError('IoError(Os { code: 28, message: "No space left on device" })')
    with (
        pytest.raises(OutputError, match=r"cannot write .*No space left"),
        staged_folder(tmp_path / "a", overwrite=False),
    ):
        raise error
    assert names(tmp_path) == []


def test_missing_data_file_in_the_block_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "a", overwrite=False):
        (tmp_path / "dataset.parquet").read_bytes()
    assert names(tmp_path) == []
