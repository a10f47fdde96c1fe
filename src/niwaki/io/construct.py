"""Build the original that a file names, on a leash: nothing far larger than the file's own tensors.

The factory runs first on the meta device, where tensors take no memory. A file whose arguments ask
for more parameters, or larger ones, than its plan speaks of is refused before anything is
allocated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy

from niwaki.core.errors import NiwakiError
from niwaki.models import build_guarded

# a factory may replace what it first made: so many times the planned number, and the largest
# planned size
ROOM = 4
SLACK = 1000  # tensors, and modules without any


class _TooLargeError(BaseException):
    """Not an Exception, so that no factory catches it."""


def build_original(
    factory: str,
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int],
    trust: Sequence[str] = (),
) -> nn.Module:
    """The network that a file's factory makes.

    Args:
        sizes: numbers in each tensor of the original.
        trust: packages whose code the user lets run.

    Raises:
        NiwakiError: the factory is not run unasked, cannot be imported, fails, or makes something
            far larger.
    """
    try:
        with torch.device("meta"), _leash(sizes):
            build_guarded(factory, arguments, trust)
    except _TooLargeError as error:
        raise NiwakiError(str(error)) from None
    except NiwakiError:
        pass  # not every factory works without memory; the real one says what is wrong
    try:
        with _leash(sizes):
            return build_guarded(factory, arguments, trust)
    except _TooLargeError as error:
        raise NiwakiError(str(error)) from None


@contextmanager
def _leash(sizes: Mapping[str, int]) -> Iterator[None]:
    """Stop a factory that registers far more, or far larger, than `sizes`."""
    most, largest = ROOM * len(sizes) + SLACK, ROOM * max(sizes.values(), default=0) + SLACK
    count = 0

    def watch(_: nn.Module, name: str, value: Any) -> None:
        nonlocal count
        count += 1
        if count > 4 * most:
            raise _TooLargeError(
                f"it makes over {count - 1:,} modules and tensors; the plan speaks of "
                f"{len(sizes)} tensors"
            )
        if isinstance(value, Tensor) and not is_lazy(value) and value.numel() > largest:
            raise _TooLargeError(
                f"it makes {name!r} of {value.numel():,} numbers; the plan has none of more than "
                f"{largest:,}"
            )

    with ExitStack() as handles:
        for register in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            handles.callback(register(watch).remove)
        yield
