"""One lock for what belongs to the process and not to a thread: the switches of torch's kernels,
the random generators, and classes that take notes while a model runs.
"""

from __future__ import annotations

import threading

PROCESS = threading.RLock()
