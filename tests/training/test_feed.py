"""Batches for training: every image once an epoch, the crops that the definition gives, lost files
named or counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from niwaki import data
from niwaki.core.errors import DataError, SettingError, UnknownNameError
from niwaki.data import HeldSplit, Normalization
from niwaki.training import Augment, Feed, FeedSettings

PLAIN = Normalization((0.0,) * 3, (1 / 255,) * 3)  # batches are the pixels


def make_split(count: int = 50) -> HeldSplit:
    images = torch.randint(
        0, 256, (count, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return HeldSplit(images, torch.arange(count) % 7, PLAIN)


def cropped(image: Tensor, down: int, right: int, mirrored: int, pad: int, border: str) -> Tensor:
    """By the definition: pad, crop, mirror."""
    padded = F.pad(
        image[None].float(), (pad,) * 4, mode="reflect" if border == "reflect" else "constant"
    )[0]
    crop = padded[
        :, pad + down : pad + down + image.shape[1], pad + right : pad + right + image.shape[2]
    ]
    return crop.flip(2) if mirrored else crop


@pytest.mark.parametrize("border", ["reflect", "zero"])
def test_crops_are_those_of_padding_cropping_and_mirroring(
    border: Literal["reflect", "zero"],
) -> None:
    images = make_split().images
    augment = Augment(pad=3, border=border)
    drawn = augment.draw(len(images), torch.Generator().manual_seed(1))
    assert drawn.min() == -3
    assert drawn[:, :2].max() == 3
    assert 10 < drawn[:, 2].sum() < 40
    found = augment(images, drawn)
    assert found.dtype == torch.uint8
    for image, result, (down, right, mirrored) in zip(images, found, drawn.tolist(), strict=True):
        assert torch.equal(result.float(), cropped(image, down, right, mirrored, 3, border))


def test_random_crops_are_parts_of_the_image_at_its_size() -> None:
    # an image whose pixels tell where they are: red the row, green the column
    rows, columns = torch.meshgrid(torch.arange(64) * 4, torch.arange(64) * 4, indexing="ij")
    images = torch.stack([rows, columns]).to(torch.uint8).expand(200, -1, -1, -1).contiguous()
    augment = Augment(pad=0, flip=False, crop=0.25)
    drawn = augment.draw(200, torch.Generator().manual_seed(0))
    found = augment(images, drawn)
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    height, width, top, left = (drawn[:, 3:] / 65536).unbind(1)
    assert 0.2 < (height * width).min() < 0.3
    assert (height * width).max() > 0.95
    assert (top + height).max() <= 1
    for image, side, start in (
        (found[:, 0], height, top),
        (found[:, 1].transpose(1, 2), width, left),
    ):
        across = image[:, :, 32].float() / 4  # where each row of the result was
        wanted = (torch.arange(64) + 0.5) / 64 * side[:, None] * 64 + start[:, None] * 64 - 0.5
        assert (across - wanted.clamp(0, 63)).abs().max() < 0.3


def test_every_image_comes_once_an_epoch_in_another_order() -> None:
    feed = Feed(make_split(), FeedSettings(batch_size=8, seed=2))
    epochs = [torch.cat([images for images, _ in feed(number)]) for number in (1, 2, 1)]
    assert len(list(feed(1))) == len(feed) == 7
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    pixels = make_split().images.float()
    for epoch in epochs:
        torch.testing.assert_close(
            epoch.flatten(1).sum(1).sort().values, pixels.flatten(1).sum(1).sort().values
        )
    assert len(Feed(make_split(), FeedSettings(batch_size=8, drop_last=True))) == 6


def test_an_epoch_can_be_entered_anywhere_and_shared_out() -> None:
    feed = Feed(make_split(48), FeedSettings(batch_size=8, augment=Augment(2)))
    whole = list(feed(3))
    for (images, labels), (again, same) in zip(whole[4:], feed.batches(3, start=4), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    halves = [list(feed.batches(3, part=(number, 2))) for number in (0, 1)]
    for (images, _), (first, _), (second, _) in zip(whole, *halves, strict=True):
        assert torch.equal(images, torch.cat([first, second]))


def test_what_is_left_of_the_last_batch_goes_to_no_process() -> None:
    feed = Feed(make_split(51), FeedSettings(batch_size=16))
    sizes = [[len(labels) for _, labels in feed.batches(1, part=(number, 2))] for number in (0, 1)]
    assert sizes == [[8, 8, 8, 1], [8, 8, 8, 1]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(5):
                image.new("RGB", (20, 16), (40 * number, 10, 200)).save(
                    tmp_path / part / name / f"{number}.png"
                )
    return tmp_path


def streamed(folder: Path) -> data.Split:
    return data.load("imagefolder:image_size=8", folder).split("train")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_file_is_named_or_counted(folder: Path, workers: int) -> None:
    split = streamed(folder)
    (folder / "train" / "cat" / "3.png").unlink()
    refusing = Feed(split, FeedSettings(batch_size=4, workers=workers))
    with pytest.raises(DataError, match=r"3\.png cannot be decoded .*missing='skip'") as refused:
        list(refusing(1))
    assert "Traceback" not in str(refused.value)
    skipping = Feed(
        split, FeedSettings(batch_size=4, workers=workers, missing="skip", augment=Augment(2))
    )
    seen = [labels for _, labels in skipping(1)]
    assert sorted(torch.cat(seen).tolist()) == [0] * 4 + [1] * 5
    assert list(skipping.skipped.values()) == [1]
    assert skipping.notes == (
        (
            f"1 files could not be read and were left out, the first of them "
            f"{folder / 'train' / 'cat' / '3.png'}"
        ),
    )


def test_files_give_the_same_batches_as_memory(folder: Path) -> None:
    split = streamed(folder)
    held = HeldSplit(split.pixels(torch.arange(len(split))), split.labels, split.normalization)
    settings = FeedSettings(batch_size=4, augment=Augment(2))
    for (images, labels), (again, same) in zip(
        Feed(split, settings)(1), Feed(held, settings)(1), strict=True
    ):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"workers": -1}, {"batch_size": 2.5}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="must be a whole number"):
        FeedSettings(**bad)


def test_unknown_words_get_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'reflect'"):
        Augment(border="reflct")  # type: ignore[arg-type]  # refused
    with pytest.raises(SettingError, match="crop must be a share"):
        Augment(crop=0)
    with pytest.raises(UnknownNameError, match="did you mean 'skip'"):
        FeedSettings(missing="skp")  # type: ignore[arg-type]  # refused
    with pytest.raises(SettingError, match="reflects more than"):
        Augment(pad=6)(make_split().images, torch.zeros(50, 3, dtype=torch.int64))


def test_alternating_flips_show_every_image_both_ways_by_turns() -> None:
    split = make_split()
    feed = Feed(split, FeedSettings(8, Augment(pad=0, flip="alternate"), seed=3))
    mirrored = []
    for epoch in (1, 2, 3):
        flags: dict[bytes, bool] = {}
        for images, _ in feed(epoch):
            for image in images.round().to(torch.uint8):
                plain = next(
                    own
                    for own in split.images
                    if torch.equal(own, image) or torch.equal(own.flip(2), image)
                )
                flags[plain.numpy().tobytes()] = not torch.equal(plain, image)
        mirrored.append(flags)
    first, second, third = mirrored
    assert len(first) == 50
    assert 10 < sum(first.values()) < 40
    assert second == {image: not flag for image, flag in first.items()}
    assert third == first


def test_images_grow_from_epoch_to_epoch() -> None:
    feed = Feed(make_split(), FeedSettings(8, sizes=((1, 3), (3, 4), (5, 6))))
    sizes = [next(iter(feed(epoch)))[0].shape[2:] for epoch in (1, 2, 3, 4, 5)]
    assert sizes == [(3, 3), (3, 3), (4, 4), (4, 4), (6, 6)]
    later = Feed(make_split(), FeedSettings(8, sizes=((2, 3),)))
    whole, scaled = (next(iter(later(epoch)))[0] for epoch in (1, 2))
    assert whole.shape[2:] == (6, 5)
    again = next(iter(Feed(make_split(), FeedSettings(8))(2)))[0]
    wanted = F.interpolate(again, (3, 3), mode="bilinear", antialias=True)
    torch.testing.assert_close(scaled, wanted)
    assert later.describe()["sizes"] == [[2, 3]]
    for bad in (((3, 4), (1, 3)), ((1, 0),), ((2, 3), (2, 4))):
        with pytest.raises(SettingError, match="later epochs last"):
            FeedSettings(8, sizes=bad)
    with pytest.raises(SettingError, match="flip is true, false or 'alternate'"):
        Augment(flip="twice")  # type: ignore[arg-type]  # refused
