"""`--scope`, `--only` and `--skip`: words that become a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from niwaki.core.errors import SettingError
from niwaki.core.registry import Registry, parse
from niwaki.pruning.selection import Rounding, Rule, Selection

_SCOPES: Registry[ScopeSettings] = Registry("scope")


@_SCOPES.register("local")
@_SCOPES.register("global")
@_SCOPES.register("cost")
@_SCOPES.register("auto")
@_SCOPES.register("quick")
@dataclass(frozen=True)
class ScopeSettings:
    """What `--scope` says beside its name; see `niwaki.Selection`. Shares are written
    layer1.*=0.6+layer2.*=0.3.
    """

    min_units: int = 1
    rounding: Rounding = "round"
    multiple: int | None = None
    what: str = "units"
    uniform: bool | None = None
    rule: Rule = "exact"
    shares: str = ""
    at_most: float = 1.0


def selection_of(scope: str, only: Sequence[str], skip: Sequence[str]) -> Selection:
    """How units are chosen, from what `--scope`, `--only` and `--skip` say.

    Raises:
        SettingError, UnknownNameError: a word of it means nothing.
    """
    said = _SCOPES.build(scope)
    if "blocks" in said.what.split("+"):
        raise SettingError("on the command line blocks of weights go by --scope blocks")
    return Selection(
        parse(scope)[0],  # type: ignore[arg-type]  # one of those that are registered
        tuple(only),
        tuple(skip),
        said.min_units,
        said.rounding,
        said.multiple,
        said.rule,
        _shares(said.shares),
        said.at_most,
        what=_parts(said.what),
        uniform=said.uniform,
    )


def _parts(text: str) -> Any:
    """What goes, one kind or several; the selection checks the words.

    >>> _parts("units+branches")
    ('units', 'branches')
    """
    return tuple(text.split("+")) if "+" in text else text


def _shares(text: str) -> dict[str, float]:
    """Layers and the share that they lose.

    >>> _shares("layer1.*=0.6+fc=0.25")
    {'layer1.*': 0.6, 'fc': 0.25}
    """
    shares = {}
    for part in filter(None, text.split("+")):
        pattern, _, share = part.rpartition("=")
        try:
            shares[pattern] = float(share)
        except ValueError:
            pattern = ""
        if not pattern:
            raise SettingError(
                f"shares of layers are written layer1.*=0.6+layer2.*=0.3; got {part!r}"
            )
    return shares
