"""Runs on tensors without data. Where one fails, its caller runs the model for real or says so in a
sentence of its own; torch's traceback, which it logs before it raises, would only frighten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

_LOG = logging.getLogger(fake_tensor.__name__)


@contextmanager
def faked(*, allow_non_fake_inputs: bool = False) -> Iterator[FakeTensorMode]:
    """A mode for tensors without data, to be entered; meanwhile this thread's failures under such
    modes are raised and not logged.
    """
    thread = threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.exc_info is None or record.thread != thread

    _LOG.addFilter(elsewhere)
    try:
        yield FakeTensorMode(allow_non_fake_inputs=allow_non_fake_inputs)
    finally:
        _LOG.removeFilter(elsewhere)
