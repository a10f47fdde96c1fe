"""Which line of the user's code called an operator."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

import torch

_FOREIGN = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parent}/", "<")
_is_users: dict[CodeType, bool] = {}


def calling_line() -> str:
    """The innermost line on the stack outside of torch and of what records, as "file:line"; ""
    where a layer of torch's was called by nothing else.
    """
    frame = sys._getframe(1)
    while frame is not None and not _starts_the_run(frame.f_code):
        code = frame.f_code
        if code not in _is_users:
            _is_users[code] = not code.co_filename.startswith(_FOREIGN)
        if _is_users[code]:
            return f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return ""


def _starts_the_run(code: CodeType) -> bool:
    return code.co_name == "_record" and code.co_filename.startswith(_FOREIGN[1])
