"""Data sets: readers on small files written here, splits, normalisation, and the real files where
they are.
"""

import gzip
import io
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from niwaki import data
from niwaki.core.errors import DataError, MissingExtraError, SettingError, UnknownNameError
from niwaki.data import HeldSplit, Normalization, Split

PER_CLASS = 4
RANDOM = np.random.default_rng(0)


Pixels = npt.NDArray[np.uint8]


def idx(array: Pixels) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, zipped: bool = True, side: int = 28) -> Pixels:
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.repeat(np.arange(10, dtype=np.uint8), PER_CLASS)
    images = RANDOM.integers(0, 256, (len(labels), side, side), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return images


def batch(seed: int, labels: list[int] | None = None, key: bytes = b"labels") -> dict[bytes, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
    return {
        b"batch_label": b"one",
        key: list(range(10)) * 2 if labels is None else labels,
        b"data": pixels,
    }


def write_cifar10(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(pickle.dumps(batch(number), protocol=2))


def png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(
    path: Path, blobs: list[Any], labels: list[Any], image: str = "img", label: str = "label"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = [None if blob is None else {"bytes": blob, "path": None} for blob in blobs]
    pq.write_table(pa.table({image: column, label: labels}), path)


def held_split(spec: str, root: Path | None, name: str) -> HeldSplit:
    """A split of a data set whose images are all in memory."""
    split = data.load(spec, root).split(name)
    assert isinstance(split, HeldSplit)
    return split


def first_batch(split: Split, size: int = 4) -> tuple[Tensor, Tensor]:
    return next(split.batches(size))


# splits and batches


def held(count: int = 10) -> HeldSplit:
    images = torch.arange(count * 3, dtype=torch.uint8).view(count, 3, 1, 1)
    return HeldSplit(images, torch.arange(count), Normalization((0.5, 0.4, 0.3), (0.5, 0.2, 0.1)))


def test_batches_are_normalised_channel_by_channel() -> None:
    images, labels = list(held().batches(4))[1]
    expected = (
        torch.arange(12, 24).view(4, 3) / 255 - torch.tensor([0.5, 0.4, 0.3])
    ) / torch.tensor([0.5, 0.2, 0.1])
    assert images.dtype == torch.float32
    assert torch.allclose(images.flatten(1), expected)
    assert labels.tolist() == [4, 5, 6, 7]


def test_batches_cover_everything_once() -> None:
    assert [len(labels) for _, labels in held().batches(4)] == [4, 4, 2]
    shuffled = torch.cat([labels for _, labels in held().batches(3, shuffle=True)])
    assert sorted(shuffled.tolist()) == list(range(10))


def test_the_generator_decides_the_order_and_images_stay_with_labels() -> None:
    def order(seed: int) -> list[int]:
        return next(
            held().batches(10, shuffle=True, generator=torch.Generator().manual_seed(seed))
        )[1].tolist()

    assert order(1) == order(1) != order(2)
    split = held()
    for images, labels in split.batches(3, shuffle=True):
        assert torch.equal(images, split.normalization(split.images[labels]))


def test_limit_and_take() -> None:
    assert [labels.tolist() for _, labels in held().batches(4, limit=6)] == [[0, 1, 2, 3], [4, 5]]
    assert sum(len(labels) for _, labels in held().batches(4, limit=99)) == 10
    taken = held().take(torch.tensor([7, 7, 2]))
    assert taken.labels.tolist() == [7, 7, 2]
    assert torch.equal(taken.images[1], held().images[7])


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": 2, "limit": 0}])
def test_impossible_batches_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="must be at least 1; got 0"):
        held().batches(**arguments)


def test_splits_move_and_leave_the_original() -> None:
    split = held()
    moved = split.to("meta")
    assert (moved.images.device.type, moved.labels.device.type, split.images.device.type) == (
        "meta",
        "meta",
        "cpu",
    )


# digits, and what holds for every data set


def test_digits_are_split_without_overlap_and_always_alike() -> None:
    first = data.load("digits")
    parts = {name: held_split("digits", None, name) for name in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 1797
    assert all(
        torch.equal(part.images, held_split("digits", None, name).images)
        for name, part in parts.items()
    )
    assert first.split("train") is first.split("train")
    assert len(parts["test"]) == pytest.approx(0.2 * 1797, abs=5)
    assert len(parts["validation"]) == pytest.approx(0.1 * 0.8 * 1797, abs=5)
    for part in parts.values():
        counts = part.labels.bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.1 * len(part) * 0.3
    assert parts["test"].images.max() == 255
    assert first.input_shape == tuple(parts["test"].images.shape[1:])


def test_the_validation_share_never_touches_the_test_split() -> None:
    small, large = "digits:validation=0.05", "digits:validation=0.5"
    assert torch.equal(
        held_split(small, None, "test").images, held_split(large, None, "test").images
    )
    large_data = data.load(large)
    assert len(large_data.split("validation")) == pytest.approx(
        len(large_data.split("train")), abs=10
    )
    with pytest.raises(DataError, match="validation split of digits is empty"):
        data.load("digits:validation=0").split("validation")


def test_normalisation_is_chosen_by_name() -> None:
    assert data.load("digits:normalize=none").split("test").mean == (0.0,)
    images, _ = first_batch(data.load("digits:normalize=half").split("test"))
    assert (float(images.min()), float(images.max())) == (-1, 1)
    images, _ = first_batch(data.load("digits").split("train"), 2000)
    assert images.mean().item() == pytest.approx(0, abs=0.05)
    assert images.std().item() == pytest.approx(1, abs=0.05)


def test_unknown_names_are_met_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        data.load("cifar-10")
    with pytest.raises(UnknownNameError, match="did you mean 'normalize'"):
        data.load("digits:normalise=half")
    with pytest.raises(UnknownNameError, match="did you mean 'validation'"):
        data.load("digits").split("valid")
    assert data.available() == [
        "cifar10",
        "cifar100",
        "digits",
        "fashion-mnist",
        "imagefolder",
        "mnist",
    ]


@pytest.mark.parametrize(
    "spec", ["mnist:normalize=exact", "mnist:validation=1", "imagefolder:image_size=0"]
)
def test_bad_settings_are_refused(spec: str) -> None:
    with pytest.raises(SettingError, match=spec.partition(":")[2].partition("=")[0]):
        data.load(spec)


def test_digits_need_no_root(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="reads no files"):
        data.load("digits", tmp_path)


# IDX


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw", "data/mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_found_in_or_below_the_root(tmp_path: Path, below: str, zipped: bool) -> None:
    images = write_mnist(tmp_path / below, zipped=zipped)
    test = held_split("mnist", tmp_path, "test")
    assert np.array_equal(test.images.squeeze(1).numpy(), images)
    assert test.labels.bincount().tolist() == [PER_CLASS] * 10


def test_the_data_set_named_is_the_one_read(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    images = write_mnist(tmp_path / "fashion_mnist")
    found = held_split("fashion-mnist", tmp_path, "test").images
    assert np.array_equal(found.squeeze(1).numpy(), images)
    with pytest.raises(
        DataError, match="is the folder of mnist, by its name, not of fashion-mnist"
    ):
        data.load("fashion-mnist", tmp_path / "mnist")


def test_train_and_validation_are_one_file_cut_in_two(tmp_path: Path) -> None:
    images = write_mnist(tmp_path)
    train, validation = (
        held_split("mnist:validation=0.25", tmp_path, name) for name in ("train", "validation")
    )
    assert validation.labels.bincount().tolist() == [1] * 10
    together = torch.cat([train.images, validation.images]).flatten(1)
    assert {bytes(row.numpy()) for row in together} == {row.tobytes() for row in images}


def test_missing_files_say_what_was_looked_for_and_where(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    with pytest.raises(
        DataError, match=r"looked for train-images-idx3-ubyte\[.gz\] and .*train-\*.parquet.*/mnist"
    ):
        data.load("mnist", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        data.load("mnist", tmp_path / "gone")
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    mnist = data.load("mnist", tmp_path)
    assert len(mnist.split("test")) == 10 * PER_CLASS
    with pytest.raises(DataError, match=r"has train-images-idx3-ubyte.gz but not both"):
        mnist.split("train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:60], "is damaged"),
        (lambda raw: b"not gzip at all", "is damaged"),
        (
            lambda raw: gzip.compress(b"\x00\x00\x0d\x03" + gzip.decompress(raw)[4:]),
            "starts with 00 00 0d 03",
        ),
        (
            lambda raw: gzip.compress(gzip.decompress(raw)[:-9]),
            "promises 31360 bytes but holds 31351",
        ),
        (lambda raw: gzip.compress(b""), "not an IDX file"),
        (
            lambda raw: gzip.compress(idx(np.zeros((39, 28, 28), np.uint8))),
            "39 images but 40 labels",
        ),
        (
            lambda raw: gzip.compress(idx(np.zeros((40, 8, 8), np.uint8))),
            r"shape \(1, 8, 8\); expected \(1, 28, 28\)",
        ),
    ],
)
def test_damaged_idx_files_are_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"t10k-images-idx3-ubyte.gz.*{message}"):
        data.load("mnist", tmp_path).split("test")


def test_labels_out_of_range(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = np.full(10 * PER_CLASS, 10, np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match="labels from 10 to 10; this data set has classes 0 to 9"):
        data.load("mnist", tmp_path).split("test")


# CIFAR's python files


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_cifar_batches_are_read_in_order(tmp_path: Path, below: str) -> None:
    write_cifar10(tmp_path / below)
    train, test = (held_split("cifar10:validation=0", tmp_path, name) for name in ("train", "test"))
    assert train.images.shape == (100, 3, 32, 32)
    assert np.array_equal(train.images[20:40].flatten(1).numpy(), batch(1)[b"data"])
    assert test.labels.tolist() == list(range(10)) * 2


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    content = batch(0, key=b"fine_labels", labels=list(range(80, 100))) | {
        b"coarse_labels": [3] * 20
    }
    (folder / "test").write_bytes(pickle.dumps(content))
    test = data.load("cifar100", tmp_path).split("test")
    assert test.labels.tolist() == list(range(80, 100))


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_malicious_batches_run_nothing(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    trace = tmp_path / "ran"
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch(0) | {b"more": Malicious(trace)}))
    with pytest.raises(DataError, match=r"test_batch is refused.*mkdir would have to run"):
        data.load("cifar10", tmp_path).split("test")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (pickle.dumps(batch(0))[:1000], "is damaged"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({b"labels": [1]}), "no 'data'"),
        (pickle.dumps({b"data": batch(0)[b"data"]}), "no 'labels'"),
        (pickle.dumps(batch(0, labels=[1, 2])), "20 images but 2 labels"),
        (pickle.dumps(batch(0, labels=[11] * 20)), "labels from 11 to 11"),
        (pickle.dumps(batch(0) | {b"data": np.zeros((20, 784), np.uint8)}), "rows of 784 bytes"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=rf"test_batch.*{message}"):
        data.load("cifar10", tmp_path).split("test")


def test_a_lost_batch_is_missed(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3").unlink()
    cifar = data.load("cifar10", tmp_path)
    with pytest.raises(DataError, match="lacks data_batch_3"):
        cifar.split("train")


# parquet


def test_parquet_shards_are_joined_in_order(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    blobs = [png(image) for image in pixels]
    write_parquet(
        tmp_path / "cifar10" / "plain_text" / "test-00000-of-00002.parquet", blobs[:4], [0, 1, 2, 3]
    )
    write_parquet(
        tmp_path / "cifar10" / "plain_text" / "test-00001-of-00002.parquet", blobs[4:], [4, 5]
    )
    test = held_split("cifar10", tmp_path, "test")
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert test.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_row_groups_are_read_one_by_one_and_images_counted_through(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "test-00000-of-00001.parquet"
    whole = [png(image) for image in pixels]
    write_parquet(path, whole, [0, 1, 2, 3, 4])
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    split = held_split("cifar10", tmp_path, "test")
    assert split.labels.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(split.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert split.images.is_contiguous()
    for bad, said in ((b"no image", "image 3 cannot"), (png(pixels[0, :8]), "different sizes")):
        write_parquet(path, [*whole[:3], bad, bad], [0, 1, 2, 3, 4])
        pq.write_table(pq.read_table(path), path, row_group_size=3)
        with pytest.raises(DataError, match=said):
            data.load("cifar10", tmp_path).split("test")


def test_grey_parquet(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (28, 28), dtype=np.uint8)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [png(pixels)], [3], image="image")
    assert np.array_equal(held_split("mnist", tmp_path, "test").images[0, 0].numpy(), pixels)


def test_only_the_split_asked_for_is_decoded(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "test-00000-of-00001.parquet", [png(np.zeros((32, 32, 3), np.uint8))], [3]
    )
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"damaged")
    cifar = data.load("cifar10", tmp_path)
    assert len(cifar.split("test")) == 1
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet is damaged"):
        cifar.split("train")


@pytest.mark.parametrize(
    ("blobs", "labels", "names", "message"),
    [
        ([b"no image"], [0], {}, "image 0 cannot be decoded"),
        ([png(np.zeros((32, 32, 3), np.uint8))[:60]], [0], {}, "image 0 cannot be decoded"),
        ([png(np.zeros((32, n, 3), np.uint8)) for n in (32, 31)], [0, 1], {}, "2 different sizes"),
        ([None, b""], [0, 1], {}, "an image without bytes"),
        ([b"", b""], [0, None], {}, "a label in column label that is no integer"),
        ([b""], ["cat"], {}, "a label in column label that is no integer"),
        (
            [b""],
            [0],
            {"label": "fine_label"},
            "has no column label; it has img.bytes, img.path, fine_label",
        ),
        ([b""], [0], {"image": "picture"}, r"has no column img.bytes or image.bytes"),
    ],
)
def test_damaged_parquet_is_named(
    tmp_path: Path, blobs: list[Any], labels: list[Any], names: dict[str, str], message: str
) -> None:
    write_parquet(tmp_path / "test-00000-of-00001.parquet", blobs, labels, **names)
    with pytest.raises(DataError, match=rf"test-00000-of-00001.parquet.*{message}"):
        data.load("cifar10", tmp_path).split("test")


def test_a_lost_shard_is_missed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-00001-of-00002.parquet", [b""], [0])
    with pytest.raises(DataError, match="has 1 of the 2 shards"):
        data.load("cifar10", tmp_path)


# the hub


def test_without_a_root_the_hub_is_asked_and_its_failure_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fail(name: str, split: str) -> NoReturn:
        asked.append((name, split))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", fail)
    mnist = data.load("mnist")
    with pytest.raises(
        DataError,
        match=r"cannot fetch mnist.*ylecun/mnist.*no route to host.*give their folder as root",
    ):
        mnist.split("train")
    assert asked == [("ylecun/mnist", "train")]


def test_what_the_hub_gives_is_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    pixels = RANDOM.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    columns = {"img": [Image.fromarray(image) for image in pixels], "fine_label": [0, 99, 5, 6, 7]}
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.Value("int64")})
    fetched = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: fetched)
    test = held_split("cifar100", None, "test")
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert test.labels.tolist() == [0, 99, 5, 6, 7]


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        ("sklearn.datasets", "digits"),
        ("pyarrow", "cifar10"),
        ("PIL", "cifar10"),
        ("datasets", None),
    ],
)
def test_missing_libraries_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, spec: str
) -> None:
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [b""], [0])
    monkeypatch.setitem(sys.modules, module, None)
    dataset = (
        data.load("mnist")
        if spec is None
        else data.load(spec, None if spec == "digits" else tmp_path)
    )
    with pytest.raises(MissingExtraError, match=r"niwaki\[(data|hub)\]"):
        dataset.split("test")


# folders of images


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    for split, count in (("train", 10), ("val", 3)):
        for number, name in enumerate(("ant", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            for image in range(count):
                pixels = np.full((40, 60, 3), 100 * number + image, np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{image}.png")
    return tmp_path


def test_image_folder_streams_the_same_batches(image_folder: Path) -> None:
    dataset = data.load("imagefolder:image_size=32,normalize=none", image_folder)
    assert (dataset.classes, dataset.input_shape) == (2, (3, 32, 32))
    test = dataset.split("test")
    assert test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    batches = list(test.batches(4))
    assert [images.shape[0] for images, _ in batches] == [4, 2]
    assert (batches[1][0] * 255).round().mean((1, 2, 3)).tolist() == [101, 102]
    assert (len(dataset.split("train")), len(dataset.split("validation"))) == (18, 2)


def test_image_folder_keeps_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 255
    (tmp_path / "test" / "one").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "test" / "one" / "image.png")
    test = data.load("imagefolder", tmp_path).split("test")
    assert test.pixels(torch.tensor([0])).min() == 255


def test_image_folder_with_its_own_test_split(image_folder: Path) -> None:
    shutil.copytree(image_folder / "val" / "ant", image_folder / "test" / "ant")
    dataset = data.load("imagefolder", image_folder)
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [20, 6, 3]


def test_image_folder_errors(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="imagefolder needs the folder"):
        data.load("imagefolder")
    with pytest.raises(DataError, match="has no train/, val/ or test/"):
        data.load("imagefolder", tmp_path_factory.mktemp("empty"))
    (image_folder / "val" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0.png cannot be decoded"):
        first_batch(data.load("imagefolder", image_folder).split("test"))
    (image_folder / "val" / "wasp").mkdir()
    with pytest.raises(DataError, match="classes that the other splits have not: wasp"):
        data.load("imagefolder", image_folder).split("test")


# the real files


@pytest.mark.parametrize(
    ("name", "mean"), [("mnist", 0.1325), ("fashion-mnist", 0.2868), ("cifar10", 0.4768)]
)
def test_real_test_splits(shared_root: Path, name: str, mean: float) -> None:
    dataset = data.load(f"{name}:normalize=none", shared_root / "data")
    test = held_split(f"{name}:normalize=none", shared_root / "data", "test")
    assert test.images.shape == (10_000, *dataset.input_shape)
    assert len(test.labels.unique()) == 10
    assert test.images.float().mean().item() / 255 == pytest.approx(mean, abs=1e-3)
