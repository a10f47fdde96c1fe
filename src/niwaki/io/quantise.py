"""An ONNX file with 8-bit integers: weights by channel, activations by what they are on calibration
inputs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from niwaki.core.errors import ExportError, MissingExtraError
from niwaki.core.records import write_bytes_atomic
from niwaki.io.exported import Exported, difference, quietly
from niwaki.io.session import run_onnx, session


def quantise_onnx(
    source: str | os.PathLike[str], path: str | os.PathLike[str], inputs: Iterable[Tensor]
) -> Exported:
    """Write an int8 version of an exported network of one input (QDQ format, static).

    The difference that is returned is measured against the float file on the first of the inputs.
    It is not an error but the price of 8 bits: measure the accuracy with `OnnxClassifier`.

    Args:
        inputs: batches of calibration inputs; the ranges of the activations are taken from them.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        ExportError: no inputs, or ONNX Runtime cannot quantise the file.
    """
    try:
        from onnxruntime.quantization import QuantFormat, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    batches = list(inputs)
    if not batches:
        raise ExportError("int8 needs calibration inputs to take the activations' ranges from")
    runtime = session(Path(source))
    name = runtime.get_inputs()[0].name
    with tempfile.TemporaryDirectory() as folder, quietly():
        ready, small = Path(folder) / "ready.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(small),
                _Reader(name, batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
            )
        except Exception as error:  # its errors have no common class
            raise ExportError(
                f"ONNX Runtime cannot quantise {Path(source).name}: {str(error).splitlines()[0]}"
            ) from error
        content = small.read_bytes()
    got = run_onnx(session(content), batches[0])
    write_bytes_atomic(Path(path), content)
    return Exported(
        Path(path), len(content), difference(run_onnx(runtime, batches[0]), got), (len(batches[0]),)
    )


class _Reader:
    """Calibration inputs as ONNX Runtime asks for them; it wants the type that its own readers have
    by duck typing alone.
    """

    def __init__(self, name: str, batches: list[Tensor]) -> None:
        self._left = iter([{name: batch.detach().cpu().numpy()} for batch in batches])

    def get_next(self) -> Any:
        """The next batch; None at the end."""
        return next(self._left, None)

    def __iter__(self) -> Any:
        return self._left

    def __next__(self) -> Any:
        return next(self._left)
