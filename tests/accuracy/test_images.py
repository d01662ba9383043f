"""Samples that are image files: the pixels that torchvision gives, from memory or not."""

import threading

import numpy as np
import pytest
from PIL import Image

from hwsearch.accuracy import decoding
from hwsearch.accuracy.decoding import crop_size, in_parallel
from hwsearch.accuracy.images import DecodedImageCache, ImageSamples, read_images
from hwsearch.accuracy.sources import load_task
from hwsearch.errors import DataError
from hwsearch.machine import available_memory_bytes
from tests.accuracy.folders import (
    COLOURS,
    KINDS,
    REFUSED,
    class_folders,
    image_spec,
    save,
    save_noise,
    spec_for,
)
from tests.run.search_parts import Watcher


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "images")


def samples_of(folder, memory=None, side=8):
    paths = sorted(str(path) for path in folder.rglob("*.*"))
    targets = np.arange(len(paths)) % 3
    memory = memory or DecodedImageCache(1 << 30)
    return ImageSamples(folder, paths, targets, spec_for(side), memory)


def pixels(samples, size=7, side=8):
    return np.concatenate([fed["image"] for fed, _ in samples.batches(size, spec_for(side))])


def torchvision_pixels(paths, spec):
    """OFA's evaluation transforms: torchvision's own, after its own loader."""
    from torchvision import transforms
    from torchvision.datasets.folder import pil_loader

    given = spec.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize(given.resize),
            transforms.CenterCrop(given.crop),
            transforms.ToTensor(),
            transforms.Normalize(given.mean, given.std),
        ]
    )
    return np.stack([transform(pil_loader(path)).numpy() for path in paths])


@pytest.fixture
def counted(monkeypatch):
    """How many images have been decoded."""
    made, lock, count = decoding.decoder, threading.Lock(), [0]

    def decoder(resolution):
        decode = made(resolution)

        def counting(content):
            with lock:
                count[0] += 1
            return decode(content)

        return counting

    monkeypatch.setattr("hwsearch.accuracy.images.decoder", decoder)
    return count


@pytest.mark.parametrize("side", [8, 12, 28])
def test_each_resolution_is_what_torchvision_gives(folder, side):
    """The largest is more than the images have: they are enlarged."""
    samples, spec = samples_of(folder), spec_for(side)
    np.testing.assert_allclose(
        pixels(samples, side=side), torchvision_pixels(samples.paths, spec), atol=1e-6
    )


def test_the_spec_they_were_loaded_for_is_the_default(folder):
    samples = samples_of(folder, side=12)
    fed, targets = next(samples.batches(5))
    assert fed["image"].shape == (5, 3, 12, 12)
    assert fed["image"].dtype == np.float32
    assert targets.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("size", [1, 7, 30, 100])
def test_batches_cover_all_in_order(folder, size):
    samples = samples_of(folder)
    for _ in range(2):  # from the files, then from memory
        batches = list(samples.batches(size))
        assert [len(t) for _, t in batches[:-1]] == [size] * (len(batches) - 1)
        np.testing.assert_array_equal(np.concatenate([t for _, t in batches]), samples.targets)
        np.testing.assert_array_equal(
            np.concatenate([fed["image"] for fed, _ in batches]), pixels(samples_of(folder), 4)
        )


def pixels_of(folder, spec):
    """The pixels of images 0 to 3, 0 to 255: (4, h, w, channels)."""
    paths = sorted(str(path) for path in folder.iterdir())
    samples = ImageSamples(folder, paths, np.zeros(4, int), spec, DecodedImageCache(0))
    ((fed, _),) = samples.batches(4, spec)
    return np.round(255 * fed["image"].transpose(0, 2, 3, 1)).astype(int)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
class TestPixelFormats:
    def test_are_converted_and_never_clipped(self, kind, channels, tmp_path):
        """Noise of the whole range has a mean in the middle of it."""
        KINDS[kind](tmp_path / "images")
        found = pixels_of(tmp_path / "images", image_spec(channels, 15, 15))
        colours = found[..., :3]
        low = 40 if kind == "CMYK" else 105
        assert low < colours.mean() < 145
        assert colours.std() > 15
        if channels == 4 and kind not in ("RGBA", "LA", "P with transparency"):
            assert (found[..., 3] == 255).all()


def test_16_bits_are_scaled(tmp_path):
    for number, value in enumerate((0, 257, 32896, 65535)):
        Image.fromarray(np.full((9, 9), value, np.uint16)).save(tmp_path / f"{number}.png")
    found = pixels_of(tmp_path, image_spec(3, 4, 4))
    assert found[:, 0, 0, 0].tolist() == [0, 1, 128, 255]


def test_images_are_turned_upright(tmp_path):
    for number in range(4):
        image = Image.new("RGB", (16, 16))
        image.paste((255, 0, 0), (0, 0, 8, 16))  # the left half
        image.getexif()[0x0112] = 6  # turn clockwise: what is left comes to the top
        image.save(tmp_path / f"{number}.jpg", quality=95, exif=image.getexif())
    red = pixels_of(tmp_path, image_spec(3, 8, 8))[..., 0]
    assert red[:, :3].min() > 200
    assert red[:, 5:].max() < 50


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (10, 11)])
def test_crops_need_not_be_square(height, width, tmp_path):
    """The image covers them, at one scale for both sides."""
    for number in range(4):
        ramp = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / f"{number}.png")
    found = pixels_of(tmp_path, image_spec(1, height, width))[0, ..., 0]
    assert found.shape == (height, width)
    down, across = (np.abs(np.diff(found[2:-2, 2:-2], axis=axis)).mean() for axis in (0, 1))
    assert down == pytest.approx(across, rel=0.1)
    assert found[height // 2, width // 2] == pytest.approx(39, abs=4)


@pytest.mark.parametrize("kind", REFUSED)
def test_images_of_no_known_range_are_refused_by_name(kind, tmp_path):
    REFUSED[kind](tmp_path / "images")
    with pytest.raises(DataError, match=r"4 of 4 images .*0.tif \(its values are .* numbers"):
        pixels_of(tmp_path / "images", image_spec(3, 8, 8))


class TestMemory:
    """30 images take 5,760 bytes at 8 pixels, 12,960 at 12 and 23,040 at 16."""

    def test_decoded_once_where_it_fits(self, folder, counted):
        samples = samples_of(folder, DecodedImageCache(20_000))
        first = pixels(samples)
        assert counted == [30]
        np.testing.assert_array_equal(pixels(samples, size=11), first)
        assert counted == [30]

    def test_decoded_again_where_it_does_not_and_the_same(self, folder, counted):
        samples = samples_of(folder, DecodedImageCache(5_000))
        np.testing.assert_array_equal(pixels(samples), pixels(samples_of(folder)))
        assert counted == [60]
        pixels(samples)
        assert counted == [90]

    def test_the_resolution_used_longest_ago_gives_way(self, folder, counted):
        samples = samples_of(folder, DecodedImageCache(20_000))
        for side in (8, 12, 8):
            pixels(samples, side=side)
        assert counted == [60]
        pixels(samples, side=10)  # 9,000 bytes: 12 pixels have to go
        pixels(samples, side=8)
        assert counted == [90]
        pixels(samples, side=12)
        assert counted == [120]

    def test_what_can_never_fit_drives_nothing_out(self, folder, counted):
        samples = samples_of(folder, DecodedImageCache(20_000))
        for side in (8, 16, 8):
            pixels(samples, side=side)
        assert counted == [60]

    def test_splits_of_one_resolution_do_not_drive_each_other_out(self, folder, counted):
        memory = DecodedImageCache(6_000)
        one, other = samples_of(folder, memory), samples_of(folder, memory)
        for samples in (one, other, one):
            pixels(samples)
        assert counted == [60]

    def test_a_first_batch_alone_is_not_taken_for_all(self, folder, counted):
        samples = samples_of(folder)
        fed, _ = next(samples.batches(4))
        assert counted[0] <= 8
        np.testing.assert_array_equal(pixels(samples)[:4], fed["image"])
        assert len(pixels(samples)) == 30

    def test_a_quarter_of_what_there_is(self):
        assert 0 < DecodedImageCache().budget <= 0.26 * available_memory_bytes()
        assert available_memory_bytes() > 1 << 20


class TestDigest:
    def test_of_contents_and_targets(self, folder, tmp_path):
        digest = samples_of(folder).digest
        assert len(digest) == 16
        assert samples_of(folder, side=12).digest == digest
        moved = folder.rename(tmp_path / "elsewhere")
        assert samples_of(moved).digest == digest
        other = samples_of(moved)
        other.targets = other.targets[::-1]
        assert other.digest != digest
        save_noise(moved / "ant" / "ant_0.png", 999)
        assert samples_of(moved).digest != digest

    def test_decodes_nothing(self, folder, counted):
        assert samples_of(folder).digest
        assert counted == [0]

    def test_reading_finds_the_same(self, folder):
        samples = samples_of(folder)
        list(samples.decoded(crop_size(spec_for(8)), 64))
        assert samples._digest == samples_of(folder).digest

    def test_a_file_that_has_gone(self, folder):
        samples = samples_of(folder)
        (folder / "bee" / "bee_3.png").unlink()
        with pytest.raises(DataError, match=r"1 of 30 images in .*: bee/bee_3.png"):
            _ = samples.digest


class TestRead:
    @pytest.fixture
    def task(self, folder):
        return load_task(f"imagefolder:{folder}", spec_for(8), "some-supernet")

    def test_all_splits_once_with_progress(self, task, counted):
        watcher = Watcher()
        read_images(task, spec_for(8), watcher)
        assert watcher.phases == [("read", 30, 0)]
        (last,) = watcher.states
        assert last["images/s"] > 0
        assert counted == [30]
        for samples in (task.calibration, task.search, task.report):
            pixels(samples)
            assert samples.digest
        assert counted == [30]

    def test_other_data_are_left_alone(self):
        from tests.run.search_parts import network, task as arrays

        watcher, net = Watcher(), network()
        spec = net.input_spec(net.space.smallest()[0])
        read_images(arrays(spec), spec, watcher)
        assert watcher.phases == []

    @pytest.mark.parametrize(("most", "n_notes"), [(255, 0), (4095, 1), (65535, 0)])
    def test_dark_images_of_16_bits(self, most, n_notes, tmp_path):
        for kind in ("ant", "bee"):
            (tmp_path / kind).mkdir()
            for number in range(6):
                values = np.linspace(0, most, 81).reshape(9, 9).astype(np.uint16)
                Image.fromarray(values).save(tmp_path / kind / f"{number}.png")
        task, watcher = load_task(f"imagefolder:{tmp_path}", spec_for(8), "any"), Watcher()
        if most == 255:  # 8 bits in files of 16
            with pytest.raises(
                DataError, match=r"the brightest pixel .* is 1 of 255; where files"
            ):
                read_images(task, spec_for(8), watcher)
            return
        read_images(task, spec_for(8), watcher)
        assert ["the brightest pixel" in note for note in watcher.notes] == [True] * n_notes

    def test_without_room_it_checks_all_the_same(self, task, counted):
        task.search.cache.budget = 0
        read_images(task, spec_for(8), Watcher())
        assert counted == [30]
        (task.search.root / "bee" / "bee_1.JPEG").write_bytes(b"")
        with pytest.raises(DataError, match="1 of 30 images"):
            read_images(task, spec_for(8), Watcher())

    def test_unreadable_images_are_counted_and_named(self, task, folder):
        (folder / "ant" / "ant_0.png").write_bytes(b"")
        whole = (folder / "bee" / "bee_1.JPEG").read_bytes()
        (folder / "bee" / "bee_1.JPEG").write_bytes(whole[: len(whole) // 2])
        (folder / "cat" / "cat_3.png").unlink()
        # A chunk of no known kind after the header: Pillow calls it a SyntaxError.
        chunk = folder / "ant" / "ant_3.png"
        chunk.write_bytes(chunk.read_bytes().replace(b"IDAT", b"\x00DAT"))
        with pytest.raises(DataError) as caught:
            read_images(task, spec_for(8), Watcher())
        text = str(caught.value)
        assert f"4 of 30 images in '{folder}' cannot be decoded: " in text
        assert "ant/ant_0.png (empty)" in text
        assert "ant/ant_3.png (" in text
        assert "bee/bee_1.JPEG (" in text
        assert "cat/cat_3.png (No such file or directory)" in text

    def test_many_unreadable_images_are_not_all_named(self, task, folder):
        for path in folder.rglob("*.png"):
            path.write_bytes(b"x")
        with pytest.raises(DataError, match=r"12 of 30 images") as caught:
            read_images(task, spec_for(8), Watcher())
        assert str(caught.value).count(".png") == 5

    def test_read_alone_they_are_counted_too(self, task, folder):
        """The first batch holds none of them, yet the error comes with the last one's name."""
        search = task.search
        for path in (search.paths[4], search.paths[-1]):
            with open(path, "wb"):
                pass
        with pytest.raises(DataError, match=rf"2 of {len(search)} images") as caught:
            pixels(search, size=3)
        assert search.paths[-1].split("/")[-1] in str(caught.value)


def test_labels_go_with_their_images(tmp_path):
    for name, colour in COLOURS.items():
        for i in range(10):
            save(tmp_path / name / f"{i}.png", colour)
    task = load_task(f"imagefolder:{tmp_path}", spec_for(8), "some-supernet")
    palette = np.array(list(COLOURS.values())) / 255
    for samples in (task.calibration, task.search, task.report):
        for fed, targets in samples.batches(4):
            np.testing.assert_allclose(fed["image"][:, :, 4, 4], palette[targets], atol=1e-6)


def test_calibration_is_that_of_the_paper(folder):
    task = load_task(f"imagefolder:{folder}", spec_for(8), "some-supernet")
    assert task.calibration_batch == 200
    assert task.warnings == ()
    assert load_task(
        f"imagefolder:{folder}", spec_for(8, classes=tuple("abcdefg")), "some-supernet"
    ).warnings


def test_results_come_in_order_however_long_they_take():
    import time

    def slow(path):
        time.sleep(0.02 if path in "adg" else 0)
        return path.upper()

    parts = list(in_parallel(slow, list("abcdefg"), 3))
    assert parts == [["A", "B", "C"], ["D", "E", "F"], ["G"]]
