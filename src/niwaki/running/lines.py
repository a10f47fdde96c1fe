"""Which line of the user's code called an operator."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

import torch

_OURS = f"{Path(__file__).parents[1]}/"
_MODELS = f"{_OURS}models/"  # networks that come with niwaki are run like any user's
_TORCHS = (f"{Path(torch.__file__).parent}/", "<")
_PASSING_ON = ("__torch_dispatch__", "__torch_function__", "on_operator", "one_by_one")
_owners: dict[CodeType, str] = {}


def calling_line() -> str:
    """The innermost line on the stack outside of torch and of the modes that watch it, as
    "file:line"; "" where that is none of the user's: a layer of torch's that was called by nothing
    else, or what niwaki itself computes in between.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        owner = _owners.get(code) or _owners.setdefault(code, _owner(code))
        if owner == "user":
            return f"{code.co_filename}:{frame.f_lineno}"
        if owner == "niwaki":
            return ""
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return ""


def _owner(code: CodeType) -> str:
    """Whose a frame is: "user", "niwaki", or "torch" for what only passes calls on."""
    file = code.co_filename
    if file.startswith(_TORCHS) or code.co_name in _PASSING_ON:
        return "torch"
    return "niwaki" if file.startswith(_OURS) and not file.startswith(_MODELS) else "user"
