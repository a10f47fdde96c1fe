"""Where a number was measured: software versions and hardware. A latency without them says
nothing.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy
import torch

from niwaki.core.version import __version__


def versions() -> dict[str, str]:
    """Versions of niwaki, torch, python and numpy."""
    return {
        "niwaki": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }


def hardware() -> dict[str, str | int | None]:
    """The machine: cpu (name), cores (logical), threads (that torch uses), gpu (name or None),
    memory_bytes.
    """
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu_name(),
        "memory_bytes": _memory_bytes(),
    }


def _cpu_name() -> str:
    """The name in /proc/cpuinfo, because `platform.processor()` is empty or just "x86_64" on most
    Linux systems.
    """
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _gpu_name() -> str | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple MPS" if torch.backends.mps.is_available() else None


def _memory_bytes() -> int | None:
    """Physical memory in bytes; None where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
