"""Folders that somebody wrote to have code run, files read, or a process hang: each is refused in
one sentence, and nothing of it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
import torch
from safetensors.torch import load_file, save_file

import niwaki
from niwaki.core.errors import CheckpointError, NiwakiError

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
RAN = "import pathlib, torch\npathlib.Path(__file__).parent.joinpath('ran').touch()\n"
MAKES = RAN + "def make(**_) -> torch.nn.Module:\n    return torch.nn.Linear(1, 1)\n"
INSTALLED = next(  # and not imported by these tests
    (name for name in ("nbclient", "sklearn", "PIL", "ray") if name not in sys.modules), "tomli"
)
Hostile = Callable[[Path, Path], None]  # the saved network, and the current folder around it


def names(factory: str, **arguments: Any) -> Hostile:
    """A plan whose factory is this."""

    def change(net: Path, _: Path) -> None:
        plan = json.loads((net / "plan.json").read_text())
        plan.update(factory=factory, arguments=arguments)
        (net / "plan.json").write_text(json.dumps(plan))

    return change


def planned(**entries: Any) -> Hostile:
    """A plan with other entries."""

    def change(net: Path, _: Path) -> None:
        plan = json.loads((net / "plan.json").read_text())
        (net / "plan.json").write_text(json.dumps({**plan, **entries}))

    return change


def with_code(factory: str, *files: str, content: str = MAKES) -> Hostile:
    """Python files in the current folder, and a plan that names one."""

    def change(net: Path, here: Path) -> None:
        for name in files:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(content)
        names(factory)(net, here)

    return change


def distributed(net: Path, here: Path) -> None:
    """Code in the current folder that calls itself installed."""
    info = here / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "RECORD").write_text("stranger.py,,\n")
    (info / "top_level.txt").write_text("stranger\n")
    with_code("stranger:make", "stranger.py")(net, here)


def linked(name: str, target: str) -> Hostile:
    """A link to a file elsewhere in the place of one of the folder's."""

    def change(net: Path, here: Path) -> None:
        shutil.copyfile(net / name, here / "elsewhere")
        (net / name).unlink()
        (net / name).symlink_to(here / "elsewhere" if target == "elsewhere" else target)

    return change


def piped(name: str) -> Hostile:
    """A pipe that nobody writes to."""

    def change(net: Path, _: Path) -> None:
        (net / name).unlink()
        os.mkfifo(net / name)

    return change


def socketed(net: Path, _: Path) -> None:
    (net / "record.json").unlink()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(net / "record.json"))


def a_folder(net: Path, _: Path) -> None:
    (net / "plan.json").unlink()
    (net / "plan.json").mkdir()


def huge(name: str) -> Hostile:
    """A file of a terabyte, without a byte on the disk."""

    def change(net: Path, _: Path) -> None:
        with (net / name).open("r+b") as file:
            file.truncate(2**40 if name != "model.safetensors" else 2**20)

    return change


def typed(dtype: torch.dtype) -> Hostile:
    """Weights in numbers of another type than the plan says."""

    def change(net: Path, _: Path) -> None:
        tensors = load_file(net / "model.safetensors")
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        save_file(cast, str(net / "model.safetensors"))

    return change


def pickled(net: Path, here: Path) -> None:
    (here / "stranger.py").write_text(MAKES)

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, (f"touch {here}/ran",))

    torch.save(Runs(), net / "model.safetensors")


KINDS: dict[str, tuple[Hostile, str]] = {
    # code that lies about
    "a module beside": (with_code("stranger:make", "stranger.py"), "stranger"),
    "a package beside": (with_code("stranger:make", "stranger/__init__.py"), "stranger"),
    "a module in a package beside": (
        with_code("stranger.nets:make", "stranger/__init__.py", "stranger/nets.py"),
        "stranger",
    ),
    "a module in a folder without a file": (
        with_code("stranger.nets:make", "stranger/nets.py"),
        "stranger",
    ),
    "a class beside": (
        with_code("stranger:Net", "stranger.py", content=RAN + "class Net(torch.nn.Linear): ..."),
        "stranger",
    ),
    "a module that says it is installed": (distributed, "stranger"),
    "the name of an installed package": (
        with_code(f"{INSTALLED}:make", f"{INSTALLED}.py"),
        f"{INSTALLED}",
    ),
    "a compiled module beside": (with_code("stranger:make", "stranger.pyc"), "stranger"),
    "a module in the folder itself": (
        with_code("net.stranger:make", "net/stranger.py"),
        "net",
    ),
    "a path for a module": (with_code("../stranger:make", "stranger.py"), r"stranger"),
    "a relative module": (with_code(".stranger:make", "stranger.py"), r"stranger"),
    # code that is there, for other purposes
    "a shell": (names("os:system", command="touch ran"), "Python's own"),
    "an evaluation": (names("builtins:exec", source="open('ran','w')"), "Python's own"),
    "an easter egg": (names("antigravity:geohash"), "Python's own"),
    "load within load": (
        names("niwaki.io.artefact:load", folder="net", model="stranger:make"),
        "niwaki's own",
    ),
    "build within load": (
        names("niwaki.models.factory:build", spec="stranger:make"),
        "niwaki's own",
    ),
    "a reader of files": (names("niwaki.io.session:OnnxClassifier", path="x.onnx"), "own"),
    "a hub": (names("torch.hub:load", repo_or_dir="a/b", model="c"), "torch's own"),
    "an evaluator of torch's": (names("torch:compile", model="x"), "torch's own"),
    "a class that is no network": (names("pathlib:Path"), "Python's own"),
    "an installed class that is no network": (names("safetensors:safe_open"), "networks"),
    "a config elsewhere": (names("transformers:/etc/config.json"), "another file|transformers"),
    # files that are none
    "weights elsewhere": (linked("model.safetensors", "elsewhere"), "a link to a file elsewhere"),
    "a plan elsewhere": (linked("plan.json", "elsewhere"), "a link to a file elsewhere"),
    "a record out of the system": (linked("record.json", "/proc/self/environ"), "link"),
    "a device": (linked("model.safetensors", "/dev/zero"), "no ordinary file"),
    "a dangling link": (linked("plan.json", "/nowhere/at/all"), "cannot be read"),
    "a link to itself": (linked("plan.json", "plan.json"), "cannot be read"),
    "a pipe for the plan": (piped("plan.json"), "no ordinary file"),
    "a pipe for the weights": (piped("model.safetensors"), "no ordinary file"),
    "a pipe for the manifest": (piped("manifest.json"), "no ordinary file"),
    "a socket": (socketed, "no ordinary file"),
    "a folder for a file": (a_folder, "no ordinary file"),
    "a manifest of a terabyte": (huge("manifest.json"), "as large"),
    "weights with a tail": (huge("model.safetensors"), "safetensors"),
    # numbers of another type
    "double weights": (typed(torch.float64), "must be float32"),
    "half weights": (typed(torch.float16), "must be float32"),
    "whole numbers": (typed(torch.int32), "numbers of another kind"),
    "a type that is none": (planned(dtypes={"": "Tensor"}), "no known type"),
    "types in a list": (planned(dtypes=[]), "must be a table"),
    "a pickle": (pickled, "not a whole safetensors file"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model))
    return niwaki.save(result, tmp_path_factory.mktemp("saved") / "net")


@pytest.fixture
def net(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in the current folder, from which Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    shutil.copytree(saved, tmp_path / "net")
    return tmp_path / "net"


def rehash(net: Path) -> None:
    if all((net / name).is_file() and (net / name).stat().st_size < 2**30 for name in damage.READ):
        damage.rehash(net)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_folder_is_refused_in_one_sentence(kind: str, net: Path) -> None:
    hostile, said = KINDS[kind]
    hostile(net, net.parent)
    if "manifest" not in kind and kind != "a device":
        rehash(net)
    known = set(sys.modules)
    with damage.watched() as events, pytest.raises(CheckpointError, match=said) as refused:
        niwaki.load(net)
    assert events == []
    assert not list(net.parent.rglob("ran"))
    assert not {name for name in set(sys.modules) - known if "stranger" in name}
    assert "\n" not in str(refused.value)


def test_there_are_at_least_twenty_kinds() -> None:
    assert len(KINDS) >= 20


@pytest.mark.parametrize("trust", ["mine", ("other", "mine"), "mine.nets"])
def test_code_of_ones_own_runs_where_the_user_names_it(trust: Any, net: Path) -> None:
    package = net.parent / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(
        "import torch, niwaki\n"
        "def build() -> torch.nn.Module:\n    return niwaki.models.build('digits-cnn')\n"
    )
    names("mine.nets:build")(net, net.parent)
    rehash(net)
    with pytest.raises(CheckpointError, match="trust='mine'"):
        niwaki.load(net, trust="min")
    try:
        assert niwaki.count_params(niwaki.load(net, trust=trust)) > 0
    finally:
        for name in ("mine", "mine.nets"):
            sys.modules.pop(name, None)


def test_code_that_is_imported_already_is_used(net: Path) -> None:
    names("test_hostile_folders:own_network")(net, net.parent)
    rehash(net)
    assert niwaki.count_params(niwaki.load(net)) > 0


def own_network() -> torch.nn.Module:
    return niwaki.models.build("digits-cnn")


def test_links_of_a_model_hub_are_followed(net: Path) -> None:
    """Its cache holds every file once, in `blobs`, and links to it from `snapshots/REVISION`."""
    hub = net.parent / "hub"
    (hub / "snapshots").mkdir(parents=True)
    (hub / "blobs").mkdir()
    net.rename(hub / "snapshots" / "abc")
    for path in list((hub / "snapshots" / "abc").iterdir()):
        path.rename(hub / "blobs" / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert niwaki.count_params(niwaki.load(hub / "snapshots" / "abc")) > 0


@pytest.mark.parametrize(
    "said", ["```\n# pwned", "<script>alert(1)</script>", "[x](javascript:1) | a\n\n# b"]
)
def test_the_model_card_shows_what_it_quotes_as_it_is(said: str, saved: Path) -> None:
    from niwaki.io.artefact import read_blueprint, read_record
    from niwaki.io.card import model_card

    record = read_record(saved)
    record.settings["odd"] = said
    changed = type(record)(**{**vars(record), "notes": (said,)})
    card = model_card(said, changed, read_blueprint(saved))
    prose = re.sub(r"^(`{3,}).*?^\1$", "", card, flags=re.MULTILINE | re.DOTALL)
    assert "\n# pwned" not in prose
    assert "\n# b" not in prose
    assert "<script>" not in prose
    assert "](javascript" not in prose


def test_everything_hostile_is_an_error_of_niwakis(net: Path) -> None:
    """One more time by name: no raw exception reaches the user."""
    (net / "plan.json").write_bytes(b"\xff\xfe\x00")
    rehash(net)
    with pytest.raises(NiwakiError, match=r"plan\.json"):
        niwaki.load(net)
