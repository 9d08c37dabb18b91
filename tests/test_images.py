"""Image folders as they come: sizes, colours, transparency, frames; written by Pillow, compared with arithmetic."""

import numpy as np
import pytest
from PIL import Image
from test_data_files import COLOUR, GREY, draw, whole

import ppdgm
from ppdgm.data import Source, Stream, load_data
from ppdgm.errors import DataError
from ppdgm.models import VAE, ConvDecoder, ConvEncoder, Gaussian

RNG = np.random.default_rng(1)


def halved(picture):
    """Every second pixel of a bilinear average over the two pixels at each side, (1, 3, 3, 1)/8, as the edges allow."""
    for axis in range(2):
        n = picture.shape[axis]
        places, weights = np.arange(n)[None] - (2 * np.arange(n // 2)[:, None] + 0.5), None
        weights = np.maximum(1 - np.abs(places) / 2, 0)
        weights /= weights.sum(1, keepdims=True)
        picture = np.moveaxis(np.tensordot(weights, picture, (1, axis)), 0, axis)
    return picture


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "webp"])
def test_colour_is_resized_by_averages(tmp_path, kind):
    large = RNG.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    draw(tmp_path / f"1.{kind}", large, **({"lossless": True} if kind == "webp" else {}))
    x = whole(tmp_path, size=(4, 6), scale="none").train[0]
    assert x.shape == (3, 4, 6) and np.abs(np.moveaxis(x, 0, -1) - halved(large)).max() <= 1  # it rounds twice


def test_pictures_of_16_bits_and_floating_ones_are_resized_by_averages(tmp_path):
    deep = RNG.integers(0, 2**16, (8, 12)).astype(np.uint16)
    draw(tmp_path / "deep" / "1.png", deep)
    draw(tmp_path / "float" / "1.tif", deep.astype(np.float32) / 7)
    assert np.abs(whole(tmp_path / "deep", size=(4, 6), scale="none").train[0] - halved(deep)).max() <= 0.6
    np.testing.assert_allclose(whole(tmp_path / "float", size=(4, 6)).train[0], halved(deep / 7), rtol=1e-4)


def test_the_centre_or_all_of_a_wide_picture(tmp_path):
    wide = np.zeros((4, 8), np.uint8)
    wide[:, :2], wide[:, 6:] = 200, 100  # what the crop cuts off
    draw(tmp_path / "1.png", wide)
    assert not whole(tmp_path, size=4).train.any()
    ends = whole(tmp_path, size=(4, 4), crop="none", scale="none").train[0].max(0)[::3]
    assert np.abs(ends - [200 * 6 / 7, 100 * 6 / 7]).max() <= 0.6  # of the weights (3, 3, 1)/7
    assert np.array_equal(whole(tmp_path, size=(4, 8), scale="none").train[0], wide)


def test_different_sizes_and_colours_become_one(tmp_path):
    draw(tmp_path / "1.png", np.full((6, 4), 50, np.uint8))
    draw(tmp_path / "2.jpg", np.full((8, 8, 3), 90, np.uint8))
    Image.new("CMYK", (9, 5), (0, 0, 0, 255)).save(tmp_path / "3.tif")
    Image.new("P", (5, 9), 0).save(tmp_path / "4.gif")
    grey = whole(tmp_path, size=4, colour="grey", scale="none")
    assert [x.mean() for x in grey.train] == [50, 90, 0, 0] and grey.event_shape == (4, 4)
    rgb = whole(tmp_path, size=4, colour="rgb", scale="none")
    assert rgb.event_shape == (3, 4, 4) and [x.mean() for x in rgb.train] == [50, 90, 0, 0]
    with pytest.raises(DataError, match=r"2.jpg: got 8×8, in colour.*colour='grey' or 'rgb'.*size=\(6,4\)"):
        whole(tmp_path)


@pytest.mark.parametrize("given", [4, [4], (4, 4)])
def test_one_number_is_height_and_width(given):
    assert Source(name="x", size=given).size == (4, 4)


def test_grey_of_colour_is_luma(tmp_path):
    draw(tmp_path / "1.png", COLOUR[0])
    x = whole(tmp_path, colour="grey", scale="none").train[0]
    assert np.abs(x - COLOUR[0] @ [0.299, 0.587, 0.114]).max() <= 0.6  # ITU-R 601-2


@pytest.mark.parametrize(("name", "level"), [("white", 255), ("black", 0), ("grey", 128)])
def test_transparent_pixels_are_put_on_a_background(tmp_path, name, level):
    alpha = RNG.integers(0, 256, (5, 4, 1))
    draw(tmp_path / "rgb" / "1.png", np.concatenate([COLOUR[0], alpha], -1).astype(np.uint8))
    draw(tmp_path / "grey" / "1.png", np.concatenate([GREY[0][..., None], alpha], -1).astype(np.uint8))
    on = lambda front: front * (alpha / 255) + level * (1 - alpha / 255)
    x = whole(tmp_path / "rgb", background=name, scale="none").train[0]
    assert np.abs(np.moveaxis(x, 0, -1) - on(COLOUR[0])).max() <= 1
    x = whole(tmp_path / "grey", background=name, scale="none").train[0]
    assert x.shape == (5, 4) and np.abs(x - on(GREY[0][..., None])[..., 0]).max() <= 1
    with pytest.raises(DataError, match=r"transparent pixels.*background='white' \(--set data.background=white\)"):
        whole(tmp_path / "rgb")


@pytest.mark.parametrize("kind", ["gif", "tif", "webp"])
def test_a_frame_is_chosen(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    frames = [Image.fromarray(np.full((5, 4, 3), 100 * i, np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / f"1.{kind}", save_all=True, append_images=frames[1:], **options)
    for i in range(3):
        assert whole(tmp_path, frame=i, scale="none", colour="grey").train[0].mean() == 100 * i
    for options, told in (({}, "3 frames or pages.*frame=0"), ({"frame": 3}, "3 frames, so there is no frame 3")):
        with pytest.raises(DataError, match=told):
            whole(tmp_path, **options)


def test_other_pictures_are_prepared_like_the_first(tmp_path):
    for i in range(4):
        draw(tmp_path / "a" / f"{i}.png", RNG.integers(0, 256, (8, 8 + i)).astype(np.uint8))
        draw(tmp_path / "b" / f"{i}.png", RNG.integers(0, 256, (6 + i, 9, 3)).astype(np.uint8))
    first = whole(tmp_path / "a", size=4)
    assert (first.source.size, first.source.colour) == ((4, 4), "grey")
    other = load_data(tmp_path / "b", like=first, validation=0, test=0)
    assert other.event_shape == (4, 4)
    assert np.array_equal(other.train, whole(tmp_path / "b", size=4, colour="grey").train)
    again = load_data(Source.from_toml(first.source.to_toml()))
    assert np.array_equal(again.train, first.train)
    np.save(tmp_path / "x.npy", np.zeros((5, 4, 4), np.uint8))
    assert load_data(tmp_path / "x.npy", like=first).event_shape == (4, 4)  # an array has no form of pictures


def test_many_images_are_written_once_and_streamed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(6):
        draw(tmp_path / "p" / ("b" if i % 2 else "a") / f"{i}.png", COLOUR[i])
    loaded = load_data(tmp_path / "p", test=0, fields=["x", "label"])
    streamed = load_data(tmp_path / "p", test=0, fields=["x", "label"], memory=100)
    assert isinstance(streamed.train["x"], Stream) and "6 images are in" in capsys.readouterr().err
    for split in ("train", "validation"):
        for name in ("x", "label"):
            assert np.array_equal(getattr(loaded, split)[name], getattr(streamed, split)[name][:])
    monkeypatch.setattr("ppdgm.data.images._fill", lambda *_: pytest.fail("it is read again"))
    assert np.array_equal(load_data(tmp_path / "p", test=0, memory=100).train[:], loaded.train["x"])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw(tmp_path / "p" / "a" / "0.png", 255 - COLOUR[0])  # a changed file is seen
    assert not np.array_equal(load_data(tmp_path / "p", test=0, memory=100).train[:], loaded.train["x"])
    assert len(list((tmp_path / "cache" / "ppdgm" / "pictures").iterdir())) == 2
    with pytest.raises(DataError, match=r"but its disk has.*XDG_CACHE_HOME"):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1}))
        load_data(tmp_path / "p", size=3, memory=100)


def test_options_for_images_are_refused_without_images(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 4)))
    draw(tmp_path / "p" / "1.png", GREY[0])
    for name, option, told in (
        ("digits", {"size": 4}, "size: got .* not a folder of images"),
        (tmp_path / "x.npy", {"colour": "grey"}, "colour: got 'grey'.* not a folder of images"),
        (tmp_path / "p", {"crop": "none"}, "crop: got 'none' without size"),
    ):
        with pytest.raises(DataError, match=told):
            load_data(name, **option)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("scale", ["unit", "standardise"])
def test_channels_that_are_last_are_moved_and_come_back(tmp_path, scale, backend):
    x = RNG.integers(0, 256, (24, 8, 10, 3)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    data = whole(tmp_path / "x.npy", channels="last", scale=scale)
    first = np.moveaxis(x, -1, 1)
    assert np.array_equal(np.asarray(data.train), whole_of(tmp_path, first, scale)) and data.event_shape == (3, 8, 10)
    program = VAE(
        event_shape=(3, 8, 10),
        latent=2,
        encoder=ConvEncoder(channels=(4,)),
        decoder=ConvDecoder(channels=(4,)),
        likelihood=Gaussian(),
    )
    ppdgm.fit(program, data, epochs=1, batch_size=12, backend=backend, progress=False, out=tmp_path / "run")
    fit = ppdgm.load(tmp_path / "run")
    assert fit.elbo(x).mean == pytest.approx(fit.elbo(data.train).mean, rel=1e-6)
    own, prepared = fit.reconstruct(x), fit.reconstruct(data.train)
    assert own.shape == x.shape and prepared.shape == first.shape
    np.testing.assert_allclose(own, data.transform.invert(prepared), rtol=1e-4, atol=1e-3)
    assert own[3, 2, 7, 1] == pytest.approx(
        float(np.moveaxis(data.transform.invert(prepared), -1, 1)[3, 1, 2, 7]), rel=1e-4
    )
    assert fit.sample(4).shape == (4, 8, 10, 3) and fit.sample(4, units="prepared").shape == (4, 3, 8, 10)
    assert np.array_equal(fit.prepare(x), data.train)
    with pytest.raises(DataError, match="expected images with their channels last"):
        fit.elbo(first)
    other = load_data(tmp_path / "x.npy", like=fit, validation=0, test=0)
    assert np.array_equal(other.train, data.train)
    with pytest.raises(DataError, match=r"channels last, expected \(3, 8, 10\).*np.moveaxis"):
        ppdgm.fit(program, x, epochs=1)


def whole_of(folder, array, scale):
    np.save(folder / "first.npy", array)
    return whole(folder / "first.npy", scale=scale).train


def test_channels_last_are_for_images(tmp_path):
    np.save(tmp_path / "x.npy", RNG.random((6, 5, 4)))
    np.save(tmp_path / "y.npy", RNG.random((6, 3, 8, 10)))
    draw(tmp_path / "p" / "1.png", COLOUR[0])
    for name, told in (("x.npy", "expected images"), ("y.npy", "expected images"), ("p", "folder of images")):
        with pytest.raises(DataError, match=told):
            load_data(tmp_path / name, channels="last")
    np.save(tmp_path / "z.npy", RNG.random((6, 8, 10, 3)))
    with pytest.raises(DataError, match="larger than memory"):
        load_data(tmp_path / "z.npy", channels="last", memory=10)
