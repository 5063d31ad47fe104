"""Data to tensors: the frames that the labels mean, through the real decoder."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.media import Made, make_video, read_number, video_of
from vidproc.errors import ConfigError
from vidproc.learn.data.augmentation import Augmentation
from vidproc.learn.data.clips import ClipData, normalise, sample_range, spread, windows_of
from vidproc.learn.data.frames import FrameData
from vidproc.learn.data.order import batches, epoch_order
from vidproc.learn.data.reader import Reader, fit_image
from vidproc.learn.labels.values import LabelledClip, LabelledFrame
from vidproc.media import FrameSize, Grid
from vidproc.models.recipe import Preprocessing
from vidproc.video.decode import MediaLimits, Source

NATIVE = FrameSize()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_video(tmp_path_factory.mktemp("data") / "a.mp4", seconds=4, fps=25, gop=12)


@pytest.fixture
def reader() -> Reader:
    return Reader(Source(), MediaLimits())


@pytest.mark.parametrize(
    ("fps", "first", "last"), [(5, 0, 4), (5, 7, 13), (Fraction(25), 99, 100), (Fraction(10, 3), 3, 9)]
)
def test_samples_are_those_of_indexing(fps: Fraction, first: int, last: int, made: Made, reader: Reader) -> None:
    frames, geometry = reader.samples(made.video, Grid(fps=Fraction(fps), size=NATIVE), first, last)
    assert [read_number(f) for f in frames] == [made.number_shown_at(Fraction(k) / fps) for k in range(first, last)]
    assert (geometry.width, geometry.height) == (96, 64)


def test_past_the_end_there_are_fewer_and_beyond_it_none(made: Made, reader: Reader) -> None:
    grid = Grid(fps=Fraction(5), size=NATIVE)
    assert len(reader.samples(made.video, grid, 18, 24)[0]) == 2
    with pytest.raises(ConfigError, match=r"x\.csv, line 2: .*a\.mp4 shows nothing from 8 to 9 s"):
        reader.samples(made.video, grid, 40, 45, "x.csv, line 2")


@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, 99), past=st.floats(0, 0.0399))
def test_a_moment_is_the_frame_on_screen_then(number: int, past: float, made: Made) -> None:
    reader = Reader(Source(), MediaLimits(), cache_bytes=0)
    frame, _ = reader.moment(made.video, number / 25 + past, NATIVE)
    assert read_number(frame) == number


def test_what_is_no_video_fails_with_the_label_that_names_it(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "x.mp4").write_text("no video at all, but some text")
    with pytest.raises(ConfigError, match=r"x\.csv, line 3: "):
        reader.info(video_of(tmp_path / "x.mp4"), "x.csv, line 3")


def test_the_cache_gives_the_same_and_stops_when_full(made: Made) -> None:
    grid = Grid(fps=Fraction(5), size=NATIVE)
    reader = Reader(Source(), MediaLimits(), cache_bytes=5 * 96 * 64 * 3)
    a, _ = reader.samples(made.video, grid, 0, 5)
    b, _ = reader.samples(made.video, grid, 5, 10)
    assert reader.samples(made.video, grid, 0, 5)[0] is a
    again, _ = reader.samples(made.video, grid, 5, 10)
    assert again is not b and (again == b).all()


def clip(made: Made, start: float, end: float | None, class_id: int = 0) -> LabelledClip:
    return LabelledClip(where="x.csv, line 2", source=made.video, start_s=start, end_s=end, class_id=class_id)


def test_the_range_of_a_stretch_and_of_one_shorter_than_the_window(made: Made) -> None:
    grid = Grid(fps=Fraction(5), size=NATIVE, window=4)
    assert sample_range(clip(made, 1, 3), grid, 4.0) == (5, 15)
    assert sample_range(clip(made, 1.05, None), grid, 4.0) == (6, 20)
    # 1.0 ... 1.4 s holds the samples 5 and 6: one more on each side makes a window.
    assert sample_range(clip(made, 1, 1.4), grid, 4.0) == (4, 8)
    assert sample_range(clip(made, 0, 0.2), grid, 4.0) == (0, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 8))
def test_views_lie_inside_and_reach_both_ends(n: int, window: int, count: int) -> None:
    starts = spread(0, n, window, count)
    assert len(starts) == count and min(starts) >= 0
    assert max(starts) + window <= max(n, window)
    if count > 1 and n > window:
        assert (starts[0], starts[-1]) == (0, n - window)
    windows = windows_of(np.arange(n)[:, None, None, None], window, starts)
    assert windows.shape[:2] == (count, window) and windows.max() <= n - 1


def test_training_windows_lie_in_the_stretch_and_move_with_the_epoch(made: Made, reader: Reader) -> None:
    grid = Grid(fps=Fraction(25), size=NATIVE, window=5)
    data = ClipData([clip(made, 1, 2)], reader, grid, Preprocessing(), seed=3)
    firsts = []
    for epoch in range(12):
        window, class_id = data[epoch, 0]
        assert window.shape == (3, 5, 64, 96) and window.dtype == torch.float32 and class_id == 0
        frames = (window.permute(1, 2, 3, 0).numpy() * 255).round().astype(np.uint8)
        numbers = [read_number(f) for f in frames]
        assert numbers == list(range(numbers[0], numbers[0] + 5)) and 25 <= numbers[0] <= 45
        firsts.append(numbers[0])
        assert torch.equal(data[epoch, 0][0], window)
    assert len(set(firsts)) > 3


def test_augmentation_keeps_the_shape_repeats_by_seed_and_treats_all_frames_alike(made: Made, reader: Reader) -> None:
    grid = Grid(fps=Fraction(5), size=NATIVE, window=2)
    still = ClipData([clip(made, 0, 4)], reader, grid, Preprocessing())
    flipped = ClipData([clip(made, 0, 4)], reader, grid, Preprocessing(), augmentation=Augmentation(flip=1))
    torch.testing.assert_close(flipped[0, 0][0], still[0, 0][0].flip(-1))
    strong = ClipData(
        [clip(made, 0, 4)], reader, grid, Preprocessing(), augmentation=Augmentation(crop=0.4, colour=0.5)
    )
    state = torch.random.get_rng_state()
    a, b = strong[0, 0][0], strong[0, 0][0]
    assert torch.equal(a, b) and a.shape == still[0, 0][0].shape and not torch.equal(a, still[0, 0][0])
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ConfigError, match="flip from 0 to 1"):
        Augmentation(flip=2)


def test_frames_come_as_the_network_wants_them() -> None:
    frames = torch.arange(3 * 4 * 6, dtype=torch.uint8).view(1, 3, 4, 6)
    p = Preprocessing(color="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2), crop=2)
    out = normalise(frames, p)
    assert out.shape == (1, 3, 2, 2)
    assert out[0, 0, 0, 0] == pytest.approx((frames[0, 2, 1, 2] / 255 - 0.1) / 0.5)


def frame(source: str, boxes: list[list[float]], time_s: float | None, size: tuple[int, int]) -> LabelledFrame:
    return LabelledFrame(
        where="x.json: images[0]",
        image_id=1,
        source=video_of(source),
        time_s=time_s,
        width=size[0],
        height=size[1],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        class_id=np.zeros(len(boxes), np.int64),
    )


def test_boxes_follow_the_frame_into_the_models_size(made: Made, reader: Reader) -> None:
    labelled = frame(str(made.path), [[12, 8, 48, 32]], 2.0, (96, 64))
    grid = Grid(fps=Fraction(2), size=FrameSize(mode="letterbox", height=96, width=96))
    image, target = FrameData([labelled], reader, grid)[0, 0]
    assert image.shape == (3, 96, 96) and image.min() >= 0 and image.max() <= 1
    assert target["boxes"].tolist() == [[12, 8, 48, 32]] and target["labels"].tolist() == [1]
    doubled = Grid(fps=Fraction(2), size=FrameSize(mode="stretch", height=128, width=48))
    assert FrameData([labelled], reader, doubled)[0, 0][1]["boxes"].tolist() == [[6, 16, 24, 64]]
    mirrored = FrameData([labelled], reader, grid, augmentation=Augmentation(flip=1))[0, 0]
    assert mirrored[1]["boxes"].tolist() == [[48, 8, 84, 32]]
    torch.testing.assert_close(mirrored[0], image.flip(-1))


def test_boxes_survive_crops_or_vanish_whole(made: Made, reader: Reader) -> None:
    labelled = frame(str(made.path), [[12, 8, 48, 32], [80, 50, 96, 64]], 1.0, (96, 64))
    data = FrameData(
        [labelled], reader, Grid(fps=Fraction(2), size=NATIVE), augmentation=Augmentation(crop=0.3, flip=0.5)
    )
    counts = set()
    for epoch in range(10):
        image, target = data[epoch, 0]
        assert image.shape == (3, 64, 96) and len(target["boxes"]) == len(target["labels"])
        counts.add(len(target["boxes"]))
        low, high = target["boxes"][:, :2], target["boxes"][:, 2:]
        assert (low >= 0).all() and (high[:, 0] <= 96).all() and (high[:, 1] <= 64).all() and (high > low).all()
    assert 2 in counts


def test_an_image_is_a_frame_too_and_its_size_must_be_the_labels(tmp_path: Path, reader: Reader) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    grid = Grid(fps=Fraction(2), size=NATIVE)
    image, _ = FrameData([frame(str(tmp_path / "x.png"), [[0, 0, 5, 5]], None, (60, 40))], reader, grid)[0, 0]
    assert (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8).tolist() == pixels.tolist()
    with pytest.raises(ConfigError, match=r"images\[0\]: says 61 x 40 pixels, but .*x\.png has 60 x 40"):
        FrameData([frame(str(tmp_path / "x.png"), [], None, (61, 40))], reader, grid)[0, 0]
    (tmp_path / "y.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"images\[0\]: .*y\.png is no image"):
        FrameData([frame(str(tmp_path / "y.png"), [], None, (61, 40))], reader, grid)[0, 0]


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (FrameSize(mode="letterbox", height=50, width=50), (50, 50)),
        (FrameSize(mode="crop", short_side=30, height=24, width=24), (24, 24)),
        (FrameSize(mode="fit", height=20, width=100), (20, 30)),
    ],
)
def test_images_are_placed_as_video_frames_are(size: FrameSize, shape: tuple[int, int]) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:45] = 255
    out, geometry = fit_image(image, size)
    assert out.shape[:2] == shape
    ys, xs = np.nonzero(out[: round(40 * geometry.scale_y), :, 0] > 127)
    x, y = (
        (xs.mean() + 0.5 - geometry.offset_x) / geometry.scale_x,
        (ys.mean() + 0.5 - geometry.offset_y) / geometry.scale_y,
    )
    if size.mode != "letterbox":
        assert (x, y) == (pytest.approx(37.5, abs=1.5), pytest.approx(15, abs=1.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 5), st.booleans())
def test_workers_share_an_epoch(classes: list[int], world: int, epoch: int, balanced: bool) -> None:
    ids = np.unique(np.array(classes), return_inverse=True)[1].astype(np.int64)
    orders = [epoch_order(ids, seed=1, epoch=epoch, balanced=balanced, rank=r, world=world) for r in range(world)]
    assert len({len(o) for o in orders}) == 1 and len(orders[0]) == -(-len(ids) // world)
    seen = Counter(i for o in orders for i in o)
    if not balanced:
        assert set(seen) == set(range(len(ids)))
    assert orders[0] == epoch_order(ids, seed=1, epoch=epoch, balanced=balanced, rank=0, world=world)


def test_balanced_epochs_show_a_rare_class_as_often() -> None:
    ids = np.array([0] * 95 + [1] * 5)
    seen = Counter(int(ids[i]) for e in range(20) for i in epoch_order(ids, seed=0, epoch=e, balanced=True))
    assert 0.85 < seen[1] / seen[0] < 1.15


@pytest.mark.parametrize(
    "n, size, lengths", [(0, 4, []), (1, 4, [1]), (8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (3, 1, [1] * 3)]
)
def test_no_batch_is_of_one_example_unless_all_are(n: int, size: int, lengths: list[int]) -> None:
    found = list(batches(range(n), size))
    assert [len(b) for b in found] == lengths and [i for b in found for i in b] == list(range(n))
