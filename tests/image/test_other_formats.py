"""WebP, AVIF, JPEG 2000 and numpy's arrays: the decoder's pixels, in all their bits, with their metadata."""

import importlib
import os
import struct
from functools import partial

import imagecodecs
import numpy as np
import pytest
from picture_files import opened
from PIL import Image

from tilepipe.errors import InputError
from tilepipe.image.metadata.profiles import adobe_rgb_profile, coded_profile, gamma_profile
from tilepipe.image.readers import open_image
from tilepipe.image.readers.apart import decode_apart

Y, X = np.mgrid[:45, :70]
RGBA = np.stack([3 * X, 5 * Y, 255 - 3 * X, 55 + 2 * X], -1).astype(np.uint8)
CODECS = {"webp": "WebP", "avif": "AVIF", "jpeg2k": "JPEG 2000"}


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("codec", CODECS)
def test_pixels_are_those_of_the_decoder(tmp_path, codec, channels):
    content = getattr(imagecodecs, f"{codec}_encode")(RGBA[..., :channels].copy())
    (tmp_path / "a").write_bytes(content)
    info, rows = opened(tmp_path / "a")
    assert (info.kind, info.colours, info.extras, info.dtype) == (CODECS[codec], 3, channels - 3, "uint8")
    np.testing.assert_array_equal(rows, getattr(imagecodecs, f"{codec}_decode")(content))
    assert info.decoded_bytes > rows.nbytes


@pytest.mark.parametrize("codec", ["avif", "jpeg2k"])
@pytest.mark.parametrize("bits", [10, 12])
def test_more_than_8_bits(tmp_path, codec, bits):
    samples = (RGBA[..., :3].astype(np.uint16) << (bits - 8)) + 3
    level = {"level": 100} if codec == "avif" else {"level": 0}
    (tmp_path / "a").write_bytes(getattr(imagecodecs, f"{codec}_encode")(samples, bitspersample=bits, **level))
    info, rows = opened(tmp_path / "a")
    assert (info.dtype, info.notes) == ("uint16", (f"{bits}-bit samples are scaled to 16 bits",))
    assert np.abs(rows / 65535 * (2**bits - 1) - samples).mean() < 2


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_metadata(tmp_path, suffix):
    exif = Image.Exif()
    exif[271], exif[274] = "Kamera", 6
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGBA[..., :3]).save(path, exif=exif, icc_profile=adobe_rgb_profile(), xmp=b"<x:xmpmeta/>")
    info, _ = opened(path)
    assert info.metadata.icc == adobe_rgb_profile()
    assert info.metadata.xmp == b"<x:xmpmeta/>"
    assert info.metadata.tags.get(271).data == b"Kamera\0"


@pytest.fixture
def decoders(tmp_path, monkeypatch):
    """A module of decoders that misbehave, which child processes can import too."""
    (tmp_path / "misbehaving.py").write_text(
        "import os, signal, sys, numpy as np\n"
        "def crash(content): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def leave(content): os._exit(3)\n"
        "def fail(content): raise ValueError('no such marker')\n"
        "def exhaust(content): raise MemoryError\n"
        "def transpose(content): return np.zeros((7, 5, 3), np.uint8)\n"
        "def widen(content): return np.zeros((5, 7, 3), np.uint16)\n"
        "def fit(content): return np.arange(105, dtype=np.uint8).reshape(5, 7, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return importlib.import_module("misbehaving")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", r"crashed \(SIGSEGV\)"),
        ("leave", r"crashed \(status 3\)"),
        ("fail", "no such marker"),
        ("transpose", r"decodes to .*7, 5, 3.*, its header states \(5, 7, 3\) uint8"),
        ("widen", r"decodes to .*uint16.*, its header states \(5, 7, 3\) uint8"),
    ],
)
def test_a_decoder_that_crashes_is_one_line(tmp_path, decoders, name, message):
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(ValueError, match=message):
        decode_apart(tmp_path / "a", (5, 7, 3), "uint8", partial(getattr(decoders, name)))
    found = decode_apart(tmp_path / "a", (5, 7, 3), "uint8", partial(decoders.fit))
    np.testing.assert_array_equal(found.ravel(), np.arange(105))


def test_a_decoder_without_memory_is_no_damage(tmp_path, decoders):
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(MemoryError):
        decode_apart(tmp_path / "a", (5, 7, 3), "uint8", partial(decoders.exhaust))


def test_nothing_is_imported_from_the_working_directory(tmp_path, monkeypatch):
    """Beside pictures from anywhere there may be files of any name."""
    (tmp_path / "a").write_bytes(imagecodecs.webp_encode(RGBA[..., :3].copy(), lossless=True))
    (tmp_path / "imagecodecs.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(opened("a")[1], RGBA[..., :3])


@pytest.mark.thorough
@pytest.mark.parametrize("codec", CODECS)
def test_a_file_cut_anywhere_is_an_input_error_or_a_picture(tmp_path, codec):
    content = getattr(imagecodecs, f"{codec}_encode")(RGBA[..., :3].copy())
    refused = 0
    for end in range(16, len(content), max(1, len(content) // 40)):
        (tmp_path / "a").write_bytes(content[:end])
        try:
            opened(tmp_path / "a")
        except InputError:
            refused += 1
    assert refused > 20


# --- .npy


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "uint32", "float16", "<f4", "float64", "bool"])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_arrays(tmp_path, dtype, channels):
    samples = (RGBA[..., :channels] if channels else RGBA[..., 0]).astype(dtype)
    np.save(tmp_path / "a.npy", samples)
    info, rows = opened(tmp_path / "a.npy")
    assert (info.height, info.width, info.channels) == (45, 70, max(1, channels))
    expected = 255 * samples if dtype == "bool" else samples
    np.testing.assert_array_equal(rows, np.atleast_3d(expected).astype(info.dtype))
    assert info.extras == int(channels in (2, 4))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "an image is"),
        (np.zeros((2, 3, 7)), "an image is"),
        (np.zeros((2, 3), complex), "an image is"),
        (np.zeros((0, 3)), "an image is"),
        (np.asfortranarray(np.zeros((4, 5))), "Fortran order"),
    ],
)
def test_arrays_that_are_no_image(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        open_image(tmp_path / "a.npy")


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}, {}]], object), allow_pickle=True)
    with pytest.raises(InputError, match="dtype object"):
        open_image(tmp_path / "a.npy")


def test_a_truncated_array(tmp_path):
    np.save(tmp_path / "a.npy", RGBA)
    content = (tmp_path / "a.npy").read_bytes()
    for end in (7, 20, 100, len(content) - 1):
        (tmp_path / "a.npy").write_bytes(content[:end])
        with pytest.raises(InputError, match=r"truncated|damaged"):
            open_image(tmp_path / "a.npy")


# --- boxes


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_the_depth_of_a_jpeg2000_behind_a_long_box(tmp_path):
    """A box before the picture, with bytes in it that look like a picture's start."""
    samples = np.arange(45 * 70, dtype=np.uint16).reshape(45, 70) * 20
    content = imagecodecs.jpeg2k_encode(samples, level=0)
    at = content.index(b"jp2c") - 4
    (tmp_path / "a").write_bytes(content[:at] + box(b"uuid", b"\xff\x4f\xff\x51" * 20_000) + content[at:])
    info, rows = opened(tmp_path / "a")
    assert info.dtype == "uint16"
    np.testing.assert_array_equal(rows[..., 0], samples)


def test_profile_and_xmp_of_a_jpeg2000(tmp_path):
    content = imagecodecs.jpeg2k_encode(RGBA[..., :3].copy())
    profile = gamma_profile(1.0, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 3)
    at = content.index(b"colr") - 4
    size = struct.unpack(">I", content[at : at + 4])[0]
    colour = box(b"colr", b"\2\0\0" + profile)
    head = content.index(b"jp2h") - 4
    header = struct.pack(">I", struct.unpack(">I", content[head : head + 4])[0] + len(colour) - size)
    xmp = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x/>")
    behind = content[at + size :]
    end = behind.index(b"jp2c") - 4
    content = content[:head] + header + content[head + 4 : at] + colour + behind[:end] + xmp + behind[end:]
    (tmp_path / "a").write_bytes(content)
    info, _ = opened(tmp_path / "a")
    assert (info.metadata.icc, info.light.name, info.metadata.xmp) == (profile, "RGB built-in", b"<x/>")


def test_code_points_of_an_avif(tmp_path):
    content = imagecodecs.avif_encode(RGBA[..., :3].copy())
    at = content.index(b"colrnclx") + 8
    (tmp_path / "a").write_bytes(content[:at] + struct.pack(">HH", 9, 16) + content[at + 4 :])
    info, _ = opened(tmp_path / "a")
    assert (info.light.name, info.metadata.icc) == ("PQ", coded_profile(9, 16, 3))


def test_an_avif_of_gray_with_alpha(tmp_path):
    (tmp_path / "a").write_bytes(imagecodecs.avif_encode(RGBA[..., [0, 3]].copy(), level=100))
    info, rows = opened(tmp_path / "a")
    assert (info.colours, info.extras, rows.shape) == (1, 1, (45, 70, 2))


@pytest.mark.parametrize("suffix", ["avif", "webp"])
def test_an_animation_is_refused(tmp_path, suffix):
    frames = [Image.fromarray(RGBA[..., :3]), Image.fromarray(255 - RGBA[..., :3])]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="an animation of 2 frames"):
        open_image(tmp_path / f"a.{suffix}")
