"""What a picture carries besides pixels stands in the output, whatever the file type it came from.

The sources are laid out by hand from TIFF 6.0 and Exif 2.32, so that a mistake shared by tilepipe's reader
and its writer shows.  exiftool, when there, is the second opinion on the output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

import tilepipe.image.writers.tiff
from tilepipe.image.info import ImageInfo
from tilepipe.image.metadata.blocks import Metadata, from_exif_block, srgb_profile
from tilepipe.image.metadata.exif import EXIF_POINTER, GPS_POINTER, MAKER_NOTE, Directory
from tilepipe.image.readers import open_image
from tilepipe.image.writers.formats import FORMATS
from tilepipe.image.writers.output import BLOCK_ROWS, Output

DATA = os.environ.get("TILEPIPE_DATA")
EXIFTOOL = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not on PATH")

INTEROP_POINTER = 40965
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12
LETTERS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", UNDEFINED: "B", SRATIONAL: "i", DOUBLE: "d"}

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Arles"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)

Value = tuple[int, Any]
"""(TIFF type, values); a dict in place of it is a directory."""

INTEROP = {1: (ASCII, b"R98\0"), 2: (UNDEFINED, b"0100")}
EXIF = {
    33434: (RATIONAL, (1, 250)),  # ExposureTime
    33437: (RATIONAL, (28, 10)),  # FNumber
    34855: (SHORT, (400,)),  # ISO
    36864: (UNDEFINED, b"0232"),  # ExifVersion
    36867: (ASCII, b"2023:05:17 12:34:56\0"),  # DateTimeOriginal
    37380: (SRATIONAL, (-2, 3)),  # ExposureBiasValue
    37386: (RATIONAL, (85, 1)),  # FocalLength
    37396: (SHORT, (100, 200, 300, 400)),  # SubjectArea: long, of swapped units
    40961: (SHORT, (1,)),  # ColorSpace
    INTEROP_POINTER: INTEROP,
    42036: (ASCII, b"85mm f/1.8\0"),  # LensModel
}
GPS = {
    0: (BYTE, b"\x02\x03\x00\x00"),
    1: (ASCII, b"S\0"),
    2: (RATIONAL, (33, 1, 51, 1, 3599, 100)),
    3: (ASCII, b"E\0"),
    4: (RATIONAL, (151, 1, 12, 1, 1234, 100)),
    5: (BYTE, b"\x01"),
    6: (RATIONAL, (125, 2)),
}
FIRST = {
    270: (ASCII, b"A street in Arles\0"),
    271: (ASCII, b"Kamera\0"),
    272: (ASCII, b"K-1 II\0"),
    274: (SHORT, (6,)),
    282: (RATIONAL, (300, 1)),
    283: (RATIONAL, (30001, 100)),
    296: (SHORT, (3,)),
    315: (ASCII, b"Jane Doe\0"),
    33432: (ASCII, b"(c) 2023 Jane Doe\0"),
    EXIF_POINTER: EXIF,
    GPS_POINTER: GPS,
}
HEIGHT, WIDTH = 20, 30


def lay_out(directory: dict[int, Any], offset: int, order: str, *, big: bool = False) -> bytes:
    """Serialise a directory that will stand at `offset`, with its long values and children behind it."""
    head, row, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    slot = struct.calcsize(order + word)
    behind = offset + struct.calcsize(order + head) + row * len(directory) + slot
    table, tail = struct.pack(order + head, len(directory)), b""
    for code, value in sorted(directory.items()):
        at = behind + len(tail)
        if isinstance(value, dict):
            child = lay_out(value, at, order, big=big)
            tail += child + b"\0" * (len(child) % 2)
            kind, count, field = LONG, 1, struct.pack(order + "I", at)
        else:
            kind, values = value
            field = struct.pack(f"{order}{len(values)}{LETTERS[kind]}", *values)
            count = len(values) // (2 if kind in (RATIONAL, SRATIONAL) else 1)
            if len(field) > slot:
                tail += field + b"\0" * (len(field) % 2)
                field = struct.pack(order + word, at)
        table += struct.pack(order + "HH" + word, code, kind, count) + field.ljust(slot, b"\0")
    return table + bytes(slot) + tail


def exif_block(first: dict[int, Any], order: str) -> bytes:
    return header(order, big=False) + lay_out(first, 8, order)


def header(order: str, *, big: bool) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    return mark + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8))


def source_picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)


def write_source(path: Path, first: dict[int, Any], order: str, *, big: bool) -> None:
    """Write a TIFF by hand, without any library: one strip of 16-bit RGB behind its directory."""
    raw = source_picture().astype(np.dtype(np.uint16).newbyteorder(order)).tobytes()
    picture = {
        256: (LONG, (WIDTH,)),
        257: (LONG, (HEIGHT,)),
        258: (SHORT, (16, 16, 16)),
        259: (SHORT, (1,)),
        262: (SHORT, (2,)),
        273: (LONG, (0,)),
        277: (SHORT, (3,)),
        278: (LONG, (HEIGHT,)),
        279: (LONG, (len(raw),)),
        700: (BYTE, XMP),
        34675: (UNDEFINED, srgb_profile()),
    }
    start = header(order, big=big)
    at = len(start) + len(lay_out(first | picture, len(start), order, big=big))
    picture[273] = (LONG, (at,))
    path.write_bytes(start + lay_out(first | picture, len(start), order, big=big) + raw)


SOURCES = ["jpeg-little", "jpeg-big", "png-big", "tiff-little", "tiff-big", "bigtiff-little", "bigtiff-big"]


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ImageInfo:
    """A picture with everything in it, in each file type and byte order."""
    return make_source(tmp_path, request.param, FIRST)


def make_source(folder: Path, kind: str, first: dict[int, Any]) -> ImageInfo:
    kind, _, endian = kind.partition("-")
    order = "<" if endian == "little" else ">"
    path = folder / f"source.{'tif' if 'tiff' in kind else kind}"
    if "tiff" in kind:
        write_source(path, first, order, big=kind == "bigtiff")
    else:
        image = Image.new("RGB", (WIDTH, HEIGHT), (90, 80, 70))
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        extra = {"xmp": XMP} if kind == "jpeg" else {"pnginfo": text}
        image.save(path, exif=b"Exif\0\0" + exif_block(first, order), icc_profile=srgb_profile(), **extra)
    return info_of(path)


def info_of(path: Path) -> ImageInfo:
    reader = open_image(path)
    reader.close()
    return reader.info


@pytest.fixture(params=["TIFF", "BigTIFF", "JPEG", "PNG"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All formats of the output; BigTIFF is for pictures above 4 GB, so the limit is lowered."""
    if request.param == "BigTIFF":
        monkeypatch.setattr(tilepipe.image.writers.tiff, "CLASSIC_LIMIT", 0)
    return request.param


def written(info: ImageInfo, folder: Path, dtype: str = "uint16", layout: str = "TIFF") -> Path:
    """Pass a picture of `info`'s size through the writer; its pixels are checked as well."""
    kind = FORMATS[layout.removeprefix("Big").lower()]
    dtype = dtype if dtype in kind.dtypes else kind.dtypes[-1]
    pixels = np.arange(info.height * info.width * info.channels).reshape(info.height, info.width, -1).astype(dtype)
    path = folder / f"out{kind.suffixes[0]}"
    blocks = (pixels[y0 : y0 + BLOCK_ROWS] for y0 in range(0, len(pixels), BLOCK_ROWS))
    kind.write(path, Output(info, dtype, blocks))
    assert not list(folder.glob("*.partial"))
    reader = open_image(path)
    if layout == "JXL":  # stored upright
        pixels = info.metadata.orientation.seen(pixels)
    if layout != "JPEG":
        np.testing.assert_array_equal(reader.rows(0, reader.info.height), pixels)
    reader.close()
    return path


def values_of(metadata: Metadata) -> dict[str, dict[int, tuple[int, bytes]]]:
    exif = metadata.directories.get(EXIF_POINTER)
    gps = metadata.directories.get(GPS_POINTER)
    interop = exif.children.get(INTEROP_POINTER) if exif else None
    found = {"first": metadata.tags, "exif": exif, "gps": gps, "interop": interop}
    return {
        name: {entry.code: (entry.kind, entry.data) for entry in directory.entries}
        for name, directory in found.items()
        if directory is not None
    }


def expected(directory: dict[int, Any]) -> dict[int, tuple[int, bytes]]:
    return {
        code: (value[0], struct.pack(f"<{len(value[1])}{LETTERS[value[0]]}", *value[1]))
        for code, value in directory.items()
        if not isinstance(value, dict)
    }


def test_the_reader_finds_what_was_laid_out(source):
    found = values_of(source.metadata)
    assert found["exif"] == expected(EXIF)
    assert found["gps"] == expected(GPS)
    assert found["interop"] == expected(INTEROP)
    kept = {code: value for code, value in expected(FIRST).items() if code not in (282, 283, 296)}
    assert found["first"] == kept
    assert source.metadata.resolution == ((300, 1), (30001, 100), 3)
    assert source.metadata.icc == srgb_profile()
    assert source.metadata.xmp == XMP
    assert source.metadata.dropped == []


def test_everything_comes_back_from_the_output(source, layout, tmp_path):
    info = info_of(written(source, tmp_path, layout=layout))
    assert info.kind == layout
    assert values_of(info.metadata) == values_of(source.metadata)
    assert info.metadata.icc == source.metadata.icc == srgb_profile()
    assert info.metadata.xmp == XMP
    (x, y, unit), (x0, y0, unit0) = info.metadata.resolution, source.metadata.resolution
    assert (x[0] / x[1], y[0] / y[1], unit) == (x0[0] / x0[1], y0[0] / y0[1], unit0)
    assert info.curve_note.endswith("(ICC)")


def test_a_second_pass_changes_nothing(source, layout, tmp_path):
    first = written(source, tmp_path, layout=layout)
    (tmp_path / "again").mkdir()
    again = dataclasses.replace(info_of(first), compression=source.compression)
    assert written(again, tmp_path / "again", layout=layout).read_bytes() == first.read_bytes()


def test_the_output_holds_no_trace_of_time_place_or_software(tmp_path):
    info = make_source(tmp_path, "jpeg-little", {271: FIRST[271]})
    content = written(info, tmp_path).read_bytes()
    for trace in (b"tifffile", b"tilepipe", str(tmp_path).encode()):
        assert trace not in content, trace


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_metadata_does_not_depend_on_the_samples(tmp_path, dtype):
    source = make_source(tmp_path, "tiff-big", FIRST)
    assert values_of(info_of(written(source, tmp_path, dtype)).metadata) == values_of(source.metadata)


def test_a_picture_without_metadata_gets_none(tmp_path, layout):
    path = tmp_path / "bare.png"
    Image.new("L", (WIDTH, HEIGHT)).save(path)
    metadata = info_of(written(info_of(path), tmp_path, layout=layout)).metadata
    assert (metadata.icc, metadata.xmp, metadata.directories, metadata.tags.entries) == (None, None, {}, ())


@pytest.mark.parametrize("kind", ["jpeg-big", "tiff-little"])
def test_maker_note_is_dropped_and_reported(tmp_path, kind, layout):
    note = {MAKER_NOTE: (UNDEFINED, b"PENTAX \0" + bytes(range(200)))}
    source = make_source(tmp_path, kind, FIRST | {EXIF_POINTER: EXIF | note})
    assert source.metadata.dropped == ["MakerNote"]
    path = written(source, tmp_path, layout=layout)
    assert b"PENTAX \0" not in path.read_bytes()
    assert values_of(info_of(path).metadata)["exif"] == expected(EXIF)


def test_iptc_in_its_tiff_tag_and_in_photoshop_blocks_is_kept(tmp_path, layout):
    iptc = b"\x1c\x02\x5a\x00\x05Arles"
    photoshop = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
    source = make_source(tmp_path, "tiff-big", FIRST | {33723: (UNDEFINED, iptc), 34377: (UNDEFINED, photoshop)})
    metadata = info_of(written(source, tmp_path, layout=layout)).metadata
    assert (metadata.iptc, metadata.photoshop) == (iptc if "TIFF" in layout else None, photoshop)


def test_iptc_of_a_tiff_tag_becomes_a_photoshop_block(tmp_path):
    iptc = b"\x1c\x02\x5a\x00\x05Arles"
    source = make_source(tmp_path, "tiff-big", FIRST | {33723: (UNDEFINED, iptc)})
    for layout in ("JPEG", "PNG"):
        found = info_of(written(source, tmp_path, layout=layout)).metadata.photoshop
        assert found == b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc


def test_a_long_description_does_not_cost_the_orientation_of_a_jpeg(tmp_path):
    source = make_source(tmp_path, "tiff-big", FIRST | {270: (ASCII, b"x" * 70_000 + b"\0")})
    assert FORMATS["jpeg"].lost(source.metadata) == ["ImageDescription (more than 64 kB)"]
    found = info_of(written(source, tmp_path, layout="JPEG")).metadata
    assert found.orientation_number == 6
    assert values_of(found)["exif"] == expected(EXIF)


@pytest.mark.parametrize(("per_metre", "inches"), [(2835, 72), (11811, 300)])
def test_the_resolution_of_a_png_in_a_jpeg(tmp_path, per_metre, inches):
    path = tmp_path / "a.png"
    Image.new("L", (WIDTH, HEIGHT)).save(path, dpi=(per_metre * 0.0254,) * 2)
    (x, parts), _, unit = info_of(written(info_of(path), tmp_path, layout="JPEG")).metadata.resolution
    assert (x / parts, unit) == (inches, 2)


def test_blocks_larger_than_a_segment(tmp_path):
    big = os.urandom(150_000)
    photoshop = b"8BIM\x04\x22\0\0" + struct.pack(">I", len(big)) + big
    source = make_source(tmp_path, "tiff-big", FIRST | {34377: (UNDEFINED, photoshop)})
    icc = srgb_profile() + big  # the size in its header is not read
    source = dataclasses.replace(source, metadata=dataclasses.replace(source.metadata, icc=icc, xmp=b"<x/>" * 20000))
    for layout, lost in (("JPEG", ["XMP (more than 64 kB)"]), ("PNG", [])):
        assert FORMATS[layout.lower()].lost(source.metadata) == lost
        found = info_of(written(source, tmp_path, layout=layout)).metadata
        assert (found.icc, found.photoshop) == (icc, photoshop)
        assert found.xmp == (None if lost else source.metadata.xmp)


@pytest.mark.parametrize(
    "block",
    {
        "empty": b"",
        "text": b"Exif\0\0hello",
        "no directory": b"II*\0\x08\0\0\0",
        "offset beyond the end": b"II*\0\xff\xff\xff\x7f",
        "points to itself": exif_block({EXIF_POINTER: (LONG, (8,)), GPS_POINTER: (LONG, (8,))}, "<"),
        "value beyond the end": exif_block({271: (ASCII, b"Kamera\0")}, "<")[:-7],
        "a count of four billion": b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 271, 2, 0xFFFFFFFF, 8),
        "unknown type": b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 271, 99, 1, 8),
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_exif_does_not_stop_a_picture(tmp_path, block, layout):
    metadata = from_exif_block(block[1])
    path = tmp_path / "a.png"
    Image.new("L", (WIDTH, HEIGHT)).save(path)
    written(dataclasses.replace(info_of(path), metadata=metadata), tmp_path, layout=layout)


def test_exif_cut_anywhere_loses_only_what_is_cut():
    whole = exif_block(FIRST, ">")
    complete = values_of(from_exif_block(whole))
    for end in range(len(whole)):
        for name, directory in values_of(from_exif_block(whole[:end])).items():
            assert directory.items() <= complete[name].items()


# --- a second opinion


@pytest.mark.parametrize("layout", ["TIFF", "BigTIFF"], indirect=True)
def test_tifffile_reads_the_same(source, layout, tmp_path):
    with tifffile.TiffFile(written(source, tmp_path)) as tiff:
        tags = tiff.pages.first.tags
        assert tiff.is_bigtiff == (layout == "BigTIFF")
        assert [tag.code for tag in tags] == sorted(tag.code for tag in tags)
        exif, gps = tags[EXIF_POINTER].value, tags[GPS_POINTER].value
        assert (tags["Model"].value, tags["Orientation"].value) == ("K-1 II", 6)
        assert tags[34675].value == srgb_profile()
        assert tags[700].value == XMP
    assert exif["FNumber"] == (28, 10)
    assert exif["ExposureBiasValue"] == (-2, 3)
    assert gps["GPSLatitude"] == (33, 1, 51, 1, 3599, 100)
    assert gps["GPSLongitudeRef"] == "E"


@pytest.fixture(scope="module")
def exiftool() -> Iterator[Callable[..., str]]:
    """Ask exiftool; one process answers all questions, because it needs a quarter of a second to start."""
    with subprocess.Popen(
        [str(EXIFTOOL), "-stay_open", "True", "-@", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def ask(*arguments: object) -> str:
            questions.write("".join(f"{argument}\n" for argument in (*arguments, "-execute")))
            questions.flush()
            lines = []
            while (line := answers.readline()) != "{ready}\n":
                assert line, "exiftool has ended"
                lines.append(line)
            return "".join(lines)

        yield ask
        questions.write("-stay_open\nFalse\n")


def facts_of(exiftool: Callable[..., str], path: Path, *arguments: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(exiftool("-j", "-n", *arguments, path))[0]
    return facts


@needs_exiftool
def test_exiftool_reads_the_same(source, layout, tmp_path, exiftool):
    path = written(source, tmp_path, layout=layout)
    facts = facts_of(exiftool, path, "-G")
    assert "ExifTool:Warning" not in facts
    assert "ExifTool:Error" not in facts
    assert facts["File:FileType"] == ("BTF" if layout == "BigTIFF" else layout)
    said = {
        "EXIF:ImageDescription": "A street in Arles",
        "EXIF:Make": "Kamera",
        "EXIF:Model": "K-1 II",
        "EXIF:Orientation": 6,
        "EXIF:Artist": "Jane Doe",
        "EXIF:Copyright": "(c) 2023 Jane Doe",
        "EXIF:XResolution": 300,
        "EXIF:YResolution": 300.01,
        "EXIF:ResolutionUnit": 3,
        "EXIF:ExposureTime": 1 / 250,
        "EXIF:FNumber": 2.8,
        "EXIF:ISO": 400,
        "EXIF:DateTimeOriginal": "2023:05:17 12:34:56",
        "EXIF:ExposureCompensation": -2 / 3,
        "EXIF:FocalLength": 85,
        "EXIF:SubjectArea": "100 200 300 400",
        "EXIF:ColorSpace": 1,
        "EXIF:InteropIndex": "R98",
        "EXIF:LensModel": "85mm f/1.8",
        "EXIF:GPSLatitudeRef": "S",
        "EXIF:GPSLatitude": 33 + 51 / 60 + 35.99 / 3600,
        "EXIF:GPSLongitude": 151 + 12 / 60 + 12.34 / 3600,
        "EXIF:GPSAltitude": 62.5,
        "ICC_Profile:ColorSpaceData": "RGB ",
        "XMP:City": "Arles",
    }
    if layout == "BigTIFF":  # exiftool looks up GPS and Interop tags of BigTIFF in its EXIF table: wrong names
        said = {key: value for key, value in said.items() if "GPS" not in key and "Interop" not in key}
    found = {key: facts.get(key) for key in said}
    assert found == {
        key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for key, value in said.items()
    }


@needs_exiftool
def test_exiftool_finds_the_directories_well_formed(tmp_path, layout, exiftool):
    path = written(make_source(tmp_path, "tiff-big", FIRST), tmp_path, layout=layout)
    said = exiftool("-validate", "-warning", "-a", path)
    assert "Validate" in said
    complaints = [line for line in said.splitlines() if "Warning" in line or "Error" in line]
    # "minor" and missing tags: what the source lacks, padded tiles; the extension of BigTIFF
    harmless = ("Validate", "[minor]", "Missing required", "should be BTF")
    assert [line for line in complaints if not any(word in line for word in harmless)] == []


@needs_exiftool
@pytest.mark.parametrize("layout", ["TIFF", "JPEG", "PNG"], indirect=True)  # exiftool finds less in BigTIFF
@pytest.mark.skipif(not DATA, reason="TILEPIPE_DATA does not name the folder of test pictures")
def test_a_real_photograph_keeps_its_exif_xmp_and_iptc(tmp_path, layout, exiftool):
    path = Path(DATA or "") / "large" / "grand-canyon_5000x3750_exif_xmp.jpg"
    info = dataclasses.replace(info_of(path), height=HEIGHT, width=WIDTH)
    output = written(info, tmp_path, "uint8", layout)
    before, after = (facts_of(exiftool, file, "-G1", "-a") for file in (path, output))
    after = {key.replace("IPTC2:", "IPTC:"): value for key, value in after.items()}  # its name for "in Photoshop tags"
    groups = ("ExifIFD:", "GPS:", "InteropIFD:", "XMP", "IPTC:", "ICC")
    kept = {key: value for key, value in before.items() if key.startswith(groups)}
    assert len(kept) > 20
    assert {key: after.get(key) for key in kept} == kept
    assert (after["IFD0:Make"], after["IFD0:Model"]) == (before["IFD0:Make"], before["IFD0:Model"])


# --- the table of the documentation


def table(folder: Path) -> str:
    """What each format keeps of a TIFF with everything in it, as found in the outputs."""
    iptc = b"\x1c\x02\x5a\x00\x05Arles"
    photoshop = b"8BIM\x04\x22\0\0" + struct.pack(">I", 4) + b"abcd"
    exif = EXIF | {MAKER_NOTE: (UNDEFINED, b"PENTAX \0" + bytes(20))}
    first = FIRST | {
        269: (ASCII, b"Document\0"),
        285: (ASCII, b"Page\0"),
        305: (ASCII, b"Camera 1.2\0"),
        306: (ASCII, b"2023:05:17 12:34:56\0"),
        33723: (UNDEFINED, iptc),
        34377: (UNDEFINED, photoshop),
        33550: (DOUBLE, (1.0, 1.0, 0.0)),
        33922: (DOUBLE, (0.0, 0.0, 0.0, 5.0, 6.0, 0.0)),
        34735: (SHORT, (1, 1, 0, 0)),
        42113: (ASCII, b"0\0"),
        EXIF_POINTER: exif,
    }
    source = make_source(folder, "tiff-little", first)
    blocks: dict[str, Callable[[Metadata], object]] = {
        "ICC profile": lambda found: found.icc,
        "Exif": lambda found: found.directories.get(EXIF_POINTER, Directory(())).entries,
        "MakerNote": lambda found: False,
        "GPS": lambda found: found.directories.get(GPS_POINTER),
        "interoperability": lambda found: found.directories.get(EXIF_POINTER, Directory(())).children,
        "XMP": lambda found: found.xmp,
        "IPTC": lambda found: iptc in (found.iptc or found.photoshop or b""),
        "Photoshop resources": lambda found: photoshop in (found.photoshop or b""),
        "resolution": lambda found: round(found.resolution[0][0] / found.resolution[0][1]) if found.resolution else 0,
        "orientation (a JPEG XL is stored upright)": lambda found: found.tags.get(274),
        "description, artist, copyright": lambda found: [found.tags.get(code) for code in (270, 315, 33432)],
        "camera, date, software": lambda found: [found.tags.get(code) for code in (271, 272, 305, 306)],
        "document and page name": lambda found: [found.tags.get(code) for code in (269, 285)],
        "geo tags": lambda found: [found.tags.get(code) for code in (33550, 33922, 34735)],
        "GDAL_NODATA": lambda found: found.tags.get(42113),
    }
    found = {}
    for layout in ("TIFF", "PNG", "JPEG", "JXL", "WebP", "OME-Zarr"):
        (folder / layout).mkdir()
        found[layout] = info_of(written(source, folder / layout, layout=layout)).metadata
    lines = [f"| | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for name, get in blocks.items():
        before = get(source.metadata)
        kept = ["yes" if before and get(after) == before else "no" for after in found.values()]
        lines.append(f"| {name} | {' | '.join(kept)} |")
    lost = {layout: FORMATS[layout.lower()].lost(source.metadata) for layout in found}
    geo = ["ModelPixelScale", "ModelTiepoint", "GeoKeyDirectory", "GDAL_NODATA"]
    assert lost["TIFF"] == []
    assert lost["PNG"] == lost["JPEG"] == geo
    assert lost["JXL"] == lost["WebP"] == [*geo, "IPTC"]
    kept_in_none = [name.split("|")[1].strip() for name in lines[2:] if name.split("|")[7].strip() == "no"]
    assert len(kept_in_none) == len(blocks) - 1, "all but the resolution, and each is named:"
    assert len(lost["OME-Zarr"]) == 6 + len(source.metadata.tags.entries)
    return "\n".join(lines)


def test_the_documentation_says_what_outputs_keep(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "formats.md"
    before, start, rest = page.read_text().partition(
        "<!-- tags: written by tests/image/test_metadata_roundtrip.py -->\n"
    )
    shown, end, after = rest.partition("<!-- end of tags -->")
    expected = table(tmp_path) + "\n"
    if os.environ.get("TILEPIPE_WRITE_DOCS"):
        page.write_text(before + start + expected + end + after)
        return
    assert shown == expected, "TILEPIPE_WRITE_DOCS=1 writes the table"
