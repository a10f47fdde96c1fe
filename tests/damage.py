"""Damage to saved networks: by accident (bytes change), and on purpose (JSON rewritten, hashes made
to fit).
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READ = ("plan.json", "model.safetensors", "record.json")
NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**30,
        -(2**70),
        0.5,
        1e308,
        [],
        {},
        [[]],
        [None],
        {"": None},
        [2**40] * 3,
    ),
    *(
        "",
        "x",
        "../../outside",
        "/etc/passwd",
        "__class__",
        "forward",
        "conv1.__dict__",
        "\u0000",
        "a" * 5000,
    ),
)
FACTORIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("os:system", {"command": "touch pwned"}),
    ("subprocess:Popen", {"args": ["touch", "pwned"]}),
    ("builtins:exec", {"source": "open('pwned', 'w')"}),
    ("builtins:eval:source=open('pwned','w')", {}),
    ("torch.hub:load", {"repo_or_dir": "evil/repo", "model": "net"}),
    ("torch:load", {"f": "model.safetensors", "weights_only": False}),
    ("numpy:save", {"file": "pwned", "arr": [1]}),
    ("niwaki.records:write_text_atomic", {"path": "pwned", "text": "x"}),
    ("timm:hf-hub:evil/repo", {}),
    ("timm:resnet18", {"pretrained": True}),
    ("transformers:AutoModel.from_pretrained", {"config": {}}),
    ("transformers:BertModel", {"config": {"attn_implementation": "evil/kernel"}}),
    ("digits-cnn", {"classes": 10**9}),
    ("digits-cnn", {"image_size": 10**6}),
    ("digits-cnn", {"classes": "10"}),
    ("digits-cnn", {"classes": -1}),
    ("digits-cnn", {"unknown": 1}),
    ("resnet20", {}),
    ("../../evil:build", {}),
    ("evil.nets:build", {}),
    ("evil:build", {}),
)


def rehash(folder: Path) -> None:
    """Make the manifest fit the files, as someone who means harm would."""
    path = folder / "manifest.json"
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in json.loads(path.read_text())["files"]
    }
    path.write_text(json.dumps({"schema": 1, "files": files}, indent=2) + "\n")


def damage(folder: Path, rng: random.Random) -> str:
    """Change a saved network in one way; returns which."""
    kind = rng.choice(list(_KINDS))
    _KINDS[kind](folder, rng)
    return kind


def _read(folder: Path) -> list[str]:
    """The files that niwaki reads, but for the manifest."""
    return list(json.loads((folder / "manifest.json").read_text())["files"])


def _bytes(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice([*_read(folder), "manifest.json"])
    content = bytearray(path.read_bytes())
    head = rng.random() < 0.5  # headers are where the structure is
    for _ in range(rng.choice([1, 1, 1, 2, 20])):
        content[rng.randrange(min(len(content), 400) if head else len(content))] ^= rng.randrange(
            1, 256
        )
    path.write_bytes(bytes(content))


def _bytes_rehashed(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(_read(folder))
    content = path.read_bytes()
    at = rng.randrange(min(len(content), 400) if rng.random() < 0.7 else len(content))
    part = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
    path.write_bytes(
        rng.choice(
            [
                content[:at] + part + content[at + len(part) :],
                content[:at],
                content[:at] + part + content[at:],
            ]
        )
    )
    rehash(folder)


def _json(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(
        [name for name in _read(folder) if name in ("plan.json", "blocks.json")]
    )
    data = json.loads(path.read_text())
    for _ in range(rng.choice([1, 1, 1, 3])):
        holder, key = rng.choice(list(_places(data)))
        action = rng.random()
        if action < 0.6:
            holder[key] = rng.choice(NASTY)
        elif action < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(rng.choice(NASTY))] = holder.pop(key)
        else:
            holder.insert(key, rng.choice(NASTY))
    path.write_text(json.dumps(data))
    rehash(folder)


def _manifest(folder: Path, rng: random.Random) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    name = rng.choice(
        [
            "../../outside",
            "/etc/passwd",
            "evil.py",
            "C:\\x",
            "plan.json/../x",
            "buffers.safetensors",
        ]
    )
    data["files"][name] = rng.choice(list(data["files"].values()))
    if rng.random() < 0.5:
        del data["files"][rng.choice(READ)]
    path.write_text(json.dumps(data, indent=2) + "\n")


def _factory(folder: Path, rng: random.Random) -> None:
    path = folder / "plan.json"
    data = json.loads(path.read_text())
    data["factory"], data["arguments"] = rng.choice(FACTORIES)
    path.write_text(json.dumps(data))
    (folder / "evil.py").write_text("open('pwned', 'w')\ndef build(): pass\n")
    rehash(folder)


def _missing(folder: Path, rng: random.Random) -> None:
    (folder / rng.choice([*READ, "manifest.json"])).unlink()


_KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "bytes": _bytes,
    "bytes, hashes made to fit": _bytes_rehashed,
    "json, hashes made to fit": _json,
    "manifest": _manifest,
    "factory, hashes made to fit": _factory,
    "missing": _missing,
}


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    items = (
        list(data.items())
        if isinstance(data, dict)
        else list(enumerate(data))
        if isinstance(data, list)
        else []
    )
    for key, value in items:
        yield data, key
        yield from _places(value)


_events: list[str] | None = None
_WATCHED = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
    "pickle.find_class",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.symlink",
    "shutil.",
    "ctypes.dlopen",
    "os.fork",
)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    writes = (
        event == "open"
        and isinstance(arguments[1], str)
        and any(letter in arguments[1] for letter in "wax+")
    )
    if writes or event.startswith(_WATCHED):
        _events.append(f"{event} {arguments[:2]}")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what the block writes, starts or connects to, as Python's audit events tell it."""
    global _events
    if not getattr(sys, "_niwaki_audited", False):
        sys.addaudithook(_audit)
        sys._niwaki_audited = True  # type: ignore[attr-defined]  # a hook stays for the process
    _events = []
    try:
        yield _events
    finally:
        _events = None


Table = dict[str, dict[str, int]]


def run(
    saved: Path, place: Path, seeds: range, load: Callable[[Path], Any], allowed: type[Exception]
) -> Table:
    """Load damaged copies; kind of damage → outcome → how often. Anything but an allowed error or a
    load is raised.
    """
    table: Table = {}
    for seed in seeds:
        folder = place / "damaged"
        shutil.copytree(saved, folder)
        kind = damage(folder, random.Random(seed))
        before = sorted(place.rglob("*"))
        with watched() as events:
            try:
                load(folder)
                outcome = "loaded"
            except allowed as error:
                outcome = f"refused ({type(error).__name__})"
            except BaseException as error:
                raise AssertionError(
                    f"seed {seed}, {kind}: {type(error).__name__}: {error}"
                ) from error
        assert not events, (seed, kind, events)
        assert sorted(place.rglob("*")) == before, (seed, kind)
        table.setdefault(kind, {}).setdefault(outcome, 0)
        table[kind][outcome] += 1
        shutil.rmtree(folder)
    return table
