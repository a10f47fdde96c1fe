"""Data sets fetched by name from the Hugging Face hub, when the user has given no folder."""

from __future__ import annotations

from niwaki.core.errors import DataError, MissingExtraError
from niwaki.data.arrays import Arrays
from niwaki.data.parquet import decode


def fetch(name: str, hub_name: str, split: str, label: str, channels: int) -> Arrays:
    """The split "train" or "test" of `hub_name`; the `datasets` library keeps the files for the
    next time.

    Raises:
        DataError: it cannot be fetched.
        MissingExtraError: the `datasets` library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hub") from error
    try:
        fetched = datasets.load_dataset(hub_name, split=split)
        table = fetched.with_format("arrow")[
            :
        ]  # images stay encoded; decode() is faster than the library
    except (
        Exception
    ) as error:  # the network, the hub and the library's cache each fail in their own ways
        raise DataError(
            f"cannot fetch {name} from huggingface.co/datasets/{hub_name} ({type(error).__name__}: "
            f"{error}); where there is no network, download its files elsewhere and give their "
            "folder as root"
        ) from error
    return decode(table, label, channels, f"huggingface.co/datasets/{hub_name}")
