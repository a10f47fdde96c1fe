"""Networks of timm, torchvision and transformers by name: `timm:resnet18:num_classes=10`,
`transformers:config.json`.

Arguments may come from a file that a stranger wrote (a saved network names its factory), so
`refuse_unsafe` says which of them would fetch or read something else, or run code that the library
does not ship.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from niwaki.core.errors import NiwakiError, SettingError, UnknownNameError

NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # timm's `resnet18.a1_in1k` has a tag
FETCHING = (
    "checkpoint",
    "weights",
    "cache_dir",
    "trust_remote_code",
    "quantization_config",
    "auto_map",
)
ATTENTION = (None, "eager", "sdpa")  # any other may be a kernel from the network
MOST = 2**24  # no size of a network that one can hold is above it


def is_library(spec: str) -> bool:
    """Whether `spec` names a network of one of the three libraries."""
    return spec.partition(":")[0] in _BUILDERS


def build_from_library(spec: str, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network `name` of the library that `spec` starts with, with fresh weights unless the
    arguments say otherwise.

    Raises:
        UnknownNameError: it has no such network.
        NiwakiError: the library is not installed, or refuses the arguments.
    """
    library = spec.partition(":")[0]
    try:
        module = importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise NiwakiError(
            f"{spec!r} needs {error.name}, which is not installed; install it with: pip install "
            f"{library}"
        ) from error
    except Exception as error:  # a build that does not fit torch's fails in its own way
        raise NiwakiError(
            f"{library} is installed but cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return _BUILDERS[library](module, name, dict(arguments))
    except NiwakiError:
        raise
    except Exception as error:  # libraries fail in many ways at arguments that they do not like
        settings = ", ".join(f"{key}={str(value)[:60]}" for key, value in arguments.items())
        raise NiwakiError(
            f"{library}:{name}({settings}) failed: {type(error).__name__}: {error}"
        ) from error


def refuse_unsafe(arguments: Any, where: str = "the arguments") -> None:
    """Refuse arguments that fetch, read or run something, or that no network could have.

    Raises:
        SettingError: with the name of the argument.
    """
    if isinstance(arguments, Mapping):
        for key, value in arguments.items():
            fetches = "pretrained" in str(key) or str(key).lstrip("_").startswith(FETCHING)
            if fetches and value not in (None, False, ""):
                raise SettingError(
                    f"{where} ask for {key!r}, which would fetch or read something else; build "
                    "the model yourself"
                )
            if "attn_implementation" in str(key) and value not in ATTENTION:
                raise SettingError(
                    f"{where} ask for attention {value!r}; only "
                    f"{', '.join(map(str, ATTENTION[1:]))} are built"
                )
            refuse_unsafe(value, where)
    elif isinstance(arguments, (list, tuple)):
        for value in arguments:
            refuse_unsafe(value, where)
    elif isinstance(arguments, int) and abs(arguments) > MOST:
        raise SettingError(
            f"{where} hold the size {arguments}, which no network has; build the model yourself"
        )


def refuse_files(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a network whose settings would be read from another file than the one that names it.

    Raises:
        SettingError: it names a config.json.
    """
    if name.endswith(".json") or isinstance(arguments.get("config"), str):
        raise SettingError("its settings would be read from another file; build the model yourself")


def origin_of(model: nn.Module) -> dict[str, Any] | None:
    """What would build a network of transformers or timm again, as far as it says so itself; None
    of any other.
    """
    home = type(model).__module__.partition(".")[0]
    settings: Any = getattr(model, "config", None)
    if home == "transformers" and settings is not None:
        config: dict[str, Any] = json.loads(settings.to_json_string(use_diff=False))
        attention = getattr(settings, "_attn_implementation", None)
        arguments = {
            "config": {key: value for key, value in config.items() if value is not None},
            "attention": attention,
        }
        return {"factory": f"transformers:{type(model).__name__}", "arguments": arguments}
    described = getattr(model, "pretrained_cfg", None)
    if home == "timm" and isinstance(described, Mapping) and described.get("architecture"):
        classes = getattr(model, "num_classes", None)
        arguments = {"num_classes": classes} if isinstance(classes, int) else {}
        return {"factory": f"timm:{described['architecture']}", "arguments": arguments}
    return None


def _timm(timm: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    # anything with a colon or a slash would be fetched from a hub or read from a folder
    if not NAME.fullmatch(name) or not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())
    if "image_size" in arguments:
        size = arguments.pop("image_size")
        if timm.get_pretrained_cfg(name).fixed_input_size:
            arguments["img_size"] = size
    model: nn.Module = timm.create_model(name, **arguments)
    return model


def _torchvision(_: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    zoo = importlib.import_module("torchvision.models")
    if name not in zoo.list_models():
        raise UnknownNameError("torchvision model", name, zoo.list_models())
    model: nn.Module = zoo.get_model(name, **arguments)
    return model


def _transformers(transformers: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    config = arguments.pop("config", {})
    if name.endswith(".json"):
        config, name = _config_file(name), ""
    elif isinstance(config, str):
        config = _config_file(config)
    if not isinstance(config, dict):
        raise SettingError("config= is a table of settings, or the path of a config.json")
    name = name or next(iter(config.get("architectures") or ()), "")
    kind: Any = getattr(transformers, name, None) if NAME.fullmatch(name) else None
    is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    configured: Any = getattr(kind, "config_class", None) if is_model else None
    if configured is None:
        known = [
            key for key in dir(transformers) if key.endswith(("Model", "Classification", "LM"))
        ]
        raise UnknownNameError(
            "transformers model", name or "(none: the config names no 'architectures')", known
        )
    attention = arguments.pop("attention", None)
    settings = configured.from_dict({**config, **arguments})
    if attention is not None:
        settings._attn_implementation = attention
    model: nn.Module = kind(settings)
    return model


def _config_file(path: str) -> dict[str, Any]:
    try:
        config: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{path} cannot be read as a transformers config.json: {error}"
        ) from error
    if not isinstance(config, dict):
        raise SettingError(f"{path} holds no table of settings")
    return config


_BUILDERS: dict[str, Callable[[Any, str, dict[str, Any]], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
# what the data has → what these libraries call it
WANTED = {
    "timm": {"classes": "num_classes", "in_channels": "in_chans", "image_size": "image_size"},
    "torchvision": {"classes": "num_classes"},
    "transformers": {
        "classes": "num_labels",
        "in_channels": "num_channels",
        "image_size": "image_size",
    },
}
