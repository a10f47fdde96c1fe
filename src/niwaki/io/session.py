"""Files in ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.errors import ExportError, MissingExtraError
from niwaki.running import Inputs, as_arguments


def session(model: bytes | Path) -> Any:
    """An inference session.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: ONNX Runtime cannot load the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # its errors have no common class
        raise ExportError(
            f"ONNX Runtime cannot load the file: {str(error).splitlines()[0]}"
        ) from error


def run_onnx(runtime: Any, inputs: Inputs) -> list[Tensor]:
    """All outputs of a session; inputs by name where they have names, else in order."""
    args, kwargs = as_arguments(inputs)
    names = [entry.name for entry in runtime.get_inputs()]
    by_name = {name: value for name, value in kwargs.items() if name in names}
    by_name.update(zip((name for name in names if name not in by_name), args, strict=False))
    feed = {
        name: value.detach().cpu().numpy()
        for name, value in by_name.items()
        if isinstance(value, Tensor)
    }
    return [torch.from_numpy(output) for output in runtime.run(None, feed)]


class OnnxClassifier(nn.Module):
    """An ONNX file as a module, so that `niwaki.evaluate` and `niwaki.measure_latency` can look at
    it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.runtime = session(path)

    def forward(self, inputs: Tensor) -> Tensor:
        """Its first output."""
        return run_onnx(self.runtime, inputs)[0]
