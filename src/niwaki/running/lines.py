"""Which line of the user's code called an operator."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

import torch

_OURS = f"{Path(__file__).parents[1]}/"
_MODELS = f"{_OURS}models/"  # networks that come with niwaki are run like any user's
_FOREIGN = (f"{Path(torch.__file__).parent}/", _OURS, "<")
_is_users: dict[CodeType, bool] = {}


def calling_line() -> str:
    """The innermost line on the stack outside of torch and of niwaki, as "file:line"; ""
    where a layer of torch's was called by nothing else.
    """
    frame = sys._getframe(1)
    while frame is not None and not _starts_the_run(frame.f_code):
        code = frame.f_code
        if code not in _is_users:
            _is_users[code] = _of_the_user(code.co_filename)
        if _is_users[code]:
            return f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return ""


def _of_the_user(file: str) -> bool:
    return file.startswith(_MODELS) or not file.startswith(_FOREIGN)


def _starts_the_run(code: CodeType) -> bool:
    return code.co_name == "_record" and code.co_filename.startswith(_OURS)
