"""Who does the work, and what a death among them costs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.work.lost import Lost, LostWorkError, tried
from niwaki.core.work.on_ray import on_ray
from niwaki.core.work.processes import in_processes

Engine = Literal["local", "ray"]

R = TypeVar("R")
Pieces = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Workers:
    """Where work is done.

    Attributes:
        engine: "local" for processes of this machine; "ray" for a Ray cluster: the one that
            RAY_ADDRESS names or that the process is connected to, else one that is started here.
        count: processes; of a Ray cluster that is started here, its processors.
    """

    engine: Engine = "local"
    count: int = 1

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise UnknownNameError("engine", self.engine, get_args(Engine))
        if self.count < 1:
            raise SettingError(f"workers must be at least 1; got {self.count}")

    def run(
        self, work: Callable[..., R], pieces: Pieces, attempts: int = 4
    ) -> Generator[tuple[str, R]]:
        """Every piece's name and result, as they are done: for work of which all is needed.

        Args:
            work: a function of a module; arguments and results can be pickled.
            attempts: how often a piece is begun whose worker dies, which may be chance.

        Raises:
            MissingExtraError: Ray is not installed.
            LostWorkError: workers died on a piece in all attempts.
            Exception: what the work raised, whoever did it.
        """
        with closing(self.try_each(work, pieces, attempts)) as results:
            for name, result in results:
                if not isinstance(result, Lost):
                    yield name, result
                elif result.raised is not None:
                    raise result.raised
                else:
                    raise LostWorkError(
                        f"{name} could not be done in {attempts} attempts: {result.reason}; is "
                        "there enough memory?"
                    )

    def try_each(
        self, work: Callable[..., R], pieces: Pieces, attempts: int = 2
    ) -> Generator[tuple[str, R | Lost]]:
        """The same for work of which every piece stands alone: one whose workers died in all
        attempts, or that raised an error, comes as `Lost`, and all others are done.

        Raises:
            MissingExtraError: Ray is not installed.
        """
        if not pieces:
            return
        if self.engine == "ray":
            yield from on_ray(work, pieces, self.count, attempts)
        elif self.count == 1:
            yield from ((name, tried(work, given)) for name, given in pieces.items())
        else:
            yield from in_processes(work, pieces, min(self.count, len(pieces)), attempts)
