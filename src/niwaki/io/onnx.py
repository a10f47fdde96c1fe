"""ONNX by torch's own exporter, run in ONNX Runtime and compared."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from niwaki.core.errors import ExportError, MissingExtraError
from niwaki.core.inputs import Inputs
from niwaki.core.records import write_bytes_atomic
from niwaki.io.exported import (
    TOLERANCE,
    Exported,
    Subject,
    difference,
    quietly,
    refuse_difference,
    said,
)
from niwaki.io.session import run_onnx, session
from niwaki.measure import count_macs


def export_onnx(
    model: nn.Module,
    inputs: Inputs,
    path: str | os.PathLike[str],
    *,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write the network as an ONNX file that any batch size can be given to, where its code allows
    that.

    Args:
        inputs: what it is called with; the file's inputs have the names of the forward's
            parameters.
        tolerance: how far an output may be from the network's, as a share of the largest.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: torch cannot export the network, or the file computes something else.
        OutputError: the file cannot be written.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    subject, target = Subject.of(model, inputs), Path(path)
    failure: Exception | None = None
    for dynamic in subject.attempts:
        try:
            content = _exported(subject, dynamic, opset)
            worst, batches = _compared(subject, content, fixed=dynamic is None)
        except Exception as error:  # exporters fail in many ways; some networks have one batch size
            failure = error
            continue
        if worst <= tolerance or dynamic is None:
            refuse_difference(target, worst, tolerance)
            write_bytes_atomic(target, content)
            step = 1 if dynamic is None else subject.step
            return Exported(target, len(content), worst, batches, step)
    raise ExportError(
        f"torch cannot export {type(model).__name__} to ONNX: {said(failure)}"
    ) from failure


def _compared(subject: Subject, content: bytes, fixed: bool) -> tuple[float, tuple[int, ...]]:
    """The largest difference to the network, and the batch sizes that were tried."""
    runtime = session(content)
    worst, batches = 0.0, []
    for size, inputs, wanted in subject.trials(fixed):
        worst = max(worst, difference(wanted, run_onnx(runtime, inputs)))
        batches.append(size)
    return worst, tuple(dict.fromkeys(batches))


def _exported(subject: Subject, dynamic: Any, opset: int | None) -> bytes:
    positional, keywords = subject.arguments()
    with quietly(), _silent():
        program: Any = torch.onnx.export(
            subject.model,
            positional,
            kwargs=keywords,
            dynamo=True,
            dynamic_shapes=dynamic,
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
        program.model.metadata_props["niwaki.macs"] = str(count_macs(subject.model, subject.inputs))
        buffer = io.BytesIO()
        program.save(buffer)
    return buffer.getvalue()


@contextmanager
def _silent() -> Iterator[None]:
    """The exporter prints, and logs through several loggers."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _need(*packages: str) -> None:
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export")
