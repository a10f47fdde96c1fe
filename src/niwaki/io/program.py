"""A `torch.export` file (.pt2): the network as a graph that torch runs without the network's code,
or niwaki.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from niwaki.core.errors import ExportError
from niwaki.core.records import write_bytes_atomic
from niwaki.io.exported import (
    TOLERANCE,
    Exported,
    Subject,
    difference,
    quietly,
    refuse_difference,
    said,
    tensors,
)
from niwaki.running import Inputs, call, copied


def export_program(
    model: nn.Module, inputs: Inputs, path: str | os.PathLike[str], *, tolerance: float = TOLERANCE
) -> Exported:
    """Write the network as a .pt2 file, for any batch size where its code allows that.

    `torch.export.load(path).module()` runs it, with torch alone.

    Raises:
        ExportError: torch cannot export the network, or the file computes something else.
        OutputError: the file cannot be written.
    """
    subject, target = Subject.of(model, inputs), Path(path)
    failure: Exception | None = None
    for dynamic in subject.attempts:
        try:
            content, again = _exported(subject, dynamic)
            worst, batches = 0.0, []
            for size, trial, wanted in subject.trials(fixed=dynamic is None):
                with torch.no_grad():
                    worst = max(worst, difference(wanted, tensors(call(again, copied(trial)))))
                batches.append(size)
        except (
            Exception
        ) as error:  # some networks export with one batch size only, and some not at all
            failure = error
            continue
        refuse_difference(target, worst, tolerance)
        write_bytes_atomic(target, content)
        step = 1 if dynamic is None else subject.step
        return Exported(target, len(content), worst, tuple(dict.fromkeys(batches)), step)
    raise ExportError(
        f"torch.export cannot export {type(model).__name__}: {said(failure)}"
    ) from failure


def _exported(subject: Subject, dynamic: Any) -> tuple[bytes, nn.Module]:
    positional, keywords = subject.arguments()
    buffer = io.BytesIO()
    with quietly():
        program = torch.export.export(
            subject.model, positional, keywords, dynamic_shapes=dynamic, strict=False
        )
        torch.export.save(program, buffer)
        buffer.seek(0)
        return buffer.getvalue(), torch.export.load(buffer).module()
