"""HEIC, the photographs of phones: the decoder's pixels, upright, in all their bits, with their metadata."""

import numpy as np
import pytest
from picture_files import opened
from PIL import Image

import tilepipe
from tilepipe.errors import InputError, SettingsError
from tilepipe.image.metadata.profiles import adobe_rgb_profile, coded_profile
from tilepipe.image.orientation import Orientation
from tilepipe.image.readers import open_image
from tilepipe.image.readers.heic import is_heic
from tilepipe.psf.shapes import delta

heif = pytest.importorskip("pillow_heif", reason="pillow-heif reads HEIC: pip install 'tilepipe[heic]'")

Y, X = np.mgrid[:90, :140]
RGBA = np.stack([X, 2 * Y, 255 - X, 55 + X], -1).astype(np.uint8)


def write(path, pixels, mode, **options):
    heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes()).save(path, quality=-1, **options)
    return path


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_pixels_come_from_the_decoder(tmp_path, mode, channels):
    pixels = RGBA[:, :, :channels].copy()
    info, rows = opened(write(tmp_path / "a.heic", pixels, mode))
    assert (info.kind, info.colours, info.dtype) == ("HEIC", 3 if channels > 2 else 1, "uint8")
    assert (info.extras, rows.shape) == (channels == 4, pixels.shape)
    assert np.abs(rows.astype(int) - pixels).max() <= 4  # its colours are YCbCr
    assert info.decoded_bytes > 4 * rows.nbytes


@pytest.mark.parametrize("bits", [10, 12])
def test_more_than_8_bits(tmp_path, bits, monkeypatch):
    monkeypatch.setattr(heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    pixels = RGBA[:, :, :3].astype(np.uint16) * 257
    info, rows = opened(write(tmp_path / "a.heic", pixels, "RGB;16"))
    assert (info.dtype, info.notes) == ("uint16", (f"{bits}-bit samples are scaled to 16 bits",))
    error = rows.astype(int) - pixels
    assert np.abs(error).max() < 0.01 * 65535, "the codec's"
    assert np.abs(error[pixels > 60_000].mean()) < 0.002 * 65535, "white is white"


@pytest.mark.parametrize("number", range(1, 9))
def test_pixels_are_upright(tmp_path, number):
    exif = Image.Exif()
    exif[271], exif[274] = "Kamera", number
    path = write(tmp_path / "a.heic", RGBA[:, :, :3].copy(), "RGB", exif=exif.tobytes())
    info, rows = opened(path)
    assert (info.metadata.orientation_number, info.metadata.tags.get(271).data) == (1, b"Kamera\0")
    seen = Orientation.of(number).seen(RGBA[:, :, :3]).astype(int)
    assert rows.shape == seen.shape
    assert np.abs(rows - seen).max() <= 4


def test_profile_and_xmp_stand_in_the_output(tmp_path):
    image = heif.from_bytes("RGB", (140, 90), RGBA[:, :, :3].tobytes())
    image.info["icc_profile"], image.info["xmp"] = adobe_rgb_profile(), b"<x:xmpmeta/>"
    image.save(tmp_path / "a.heic", quality=-1)
    tilepipe.plan(tmp_path / "a.heic", tmp_path / "out.png", psf=delta(), cache=str(tmp_path / "c")).run()
    info, rows = opened(tmp_path / "out.png")
    assert info.metadata.icc == adobe_rgb_profile()
    np.testing.assert_array_equal(rows, opened(tmp_path / "a.heic")[1])


def test_code_points_become_a_profile(tmp_path):
    options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
    info, _ = opened(write(tmp_path / "a.heic", RGBA[:, :, :3].copy(), "RGB", save_nclx_profile=True, **options))
    assert info.metadata.icc == coded_profile(12, 13, 3)


def test_a_file_cut_anywhere_is_an_input_error(tmp_path):
    content = write(tmp_path / "a.heic", RGBA[:, :, :3].copy(), "RGB").read_bytes()
    for end in range(64, len(content) - 1, len(content) // 12):
        (tmp_path / "cut.heic").write_bytes(content[:end])
        with pytest.raises(InputError, match="is a damaged HEIC"):
            opened(tmp_path / "cut.heic")


def test_files_of_general_brands_are_distinguished_by_the_others():
    def start(major, *others):
        brands = major + bytes(4) + b"".join(others)
        return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands

    assert is_heic(start(b"heic", b"mif1"))
    assert is_heic(start(b"mif1", b"mif1", b"heic"))
    assert not is_heic(start(b"mif1", b"avif", b"miaf"))
    assert not is_heic(start(b"avif", b"mif1"))
    assert not is_heic(start(b"isom", b"mp41"))


def test_without_pillow_heif_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.heic", RGBA[:, :, :3].copy(), "RGB")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(SettingsError, match=r"needs pillow-heif: pip install 'tilepipe\[heic\]'"):
        open_image(path)
