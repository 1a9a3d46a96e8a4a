"""ICC profiles of tables (ICC.1:2001-04, 6.5.7), built from a model of four inks on paper, or of a screen."""

import struct
from itertools import product

import numpy as np
from imagecodecs import cms_profile, cms_transform

D50 = struct.pack(">3i", 63190, 65536, 54061)
PAPER, SOLID = np.array([0.97, 0.97, 0.95]), np.array([[0.05, 0.7, 0.85], [0.8, 0.06, 0.75], [0.98, 0.9, 0.08]])
BLACK = 0.12
OFFSET, STEPS = np.array([0, 128, 128]), np.array([652.8, 256, 256])


def cmyk_profile(*, has_way_back=True):
    """Return a profile of inks that multiply; without tables of the way back it only converts to Lab."""
    tags = {b"A2B0": table(4, 9, lambda inks: encoded_lab(printed(inks)))}
    if has_way_back:
        tags[b"B2A0"] = table(3, 25, lambda codes: separated(screen_of(decoded_lab(codes))))
    return profile(b"prtr", b"CMYK", tags)


def rgb_profile():
    """Return a profile of a screen, without curves."""
    return profile(b"mntr", b"RGB ", {b"A2B0": table(3, 17, lambda screen: encoded_lab(screen**1.1))})


def printed(inks):
    """Return sRGB, (n, 3), of amounts of ink, (n, 4)."""
    cover = [1 - inks[:, [index]] * (1 - solid) for index, solid in enumerate(SOLID)]
    return PAPER * np.prod(cover, 0) * (1 - (1 - BLACK) * inks[:, 3:])


def separated(screen):
    """Return amounts of ink, (n, 4), for sRGB, (n, 3): half of the common part is black, the rest by iteration."""
    black = 0.5 * (1 - (screen / PAPER).max(1, keepdims=True)).clip(0, 1)
    inks = np.concatenate([1 - (screen / PAPER).clip(0, 1), black], 1)
    for _ in range(100):
        inks[:, :3] = (inks[:, :3] + 0.7 * (printed(inks) - screen)).clip(0, 1)
    return inks


def screen_of(lab):
    return convert(lab, "lab", "rgb").clip(0, 1).astype(float)


def encoded_lab(screen):
    """Return L*a*b* of sRGB as 16-bit tables of version 2 have it, divided by their largest code."""
    lab = convert(screen.astype(np.float32), "rgb", "lab")
    return (lab + OFFSET) * STEPS / 65535


def decoded_lab(codes):
    return (codes * 65535 / STEPS - OFFSET).astype(np.float32)


def convert(colours, source, target):
    profiles = {"rgb": cms_profile("srgb"), "lab": cms_profile("lab4")}
    colours = np.ascontiguousarray(colours[None], np.float32)
    how = {"colorspace": source, "outcolorspace": target, "outdtype": "float32", "intent": 1}
    return np.asarray(cms_transform(colours, profiles[source], profiles[target], **how))[0]


def table(channels, points, model):
    """Return a lut16Type with `points` grid points for each of `channels`; `model` gets and returns values 0..1."""
    values = model(np.array(list(product(np.linspace(0, 1, points), repeat=channels))))
    straight = np.array([0, 65535], ">u2").tobytes()
    out = values.shape[1]
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    head = b"mft2" + bytes(4) + bytes([channels, out, points, 0]) + matrix + struct.pack(">HH", 2, 2)
    clut = np.rint(values.clip(0, 1) * 65535).astype(">u2").tobytes()
    return head + straight * channels + clut + straight * out


def profile(kind, space, tags):
    name = b"Test table"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": b"XYZ " + bytes(4) + D50,
        **tags,
    }
    offset, entries, body = 132 + 12 * len(tags), b"", b""
    for signature, tag in tags.items():
        entries += struct.pack(">4sII", signature, offset + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, kind, space, b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + D50 + bytes(48)
    return head + struct.pack(">I", len(tags)) + entries + body
