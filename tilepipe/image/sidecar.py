"""XMP sidecars: the files beside a picture in which photo managers keep ratings, keywords and edits."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sidecars"]

SUFFIXES = (".xmp", ".XMP")


def sidecars(image: Path, output: Path) -> list[tuple[Path, Path]]:
    """Return the sidecars of an image, each with the file that it becomes beside the output.

    Adobe's programs call that of ``photo.jpg`` ``photo.xmp``, darktable and digiKam ``photo.jpg.xmp``.
    """
    bases = ((image.with_suffix(""), output.with_suffix("")), (image, output))
    found = []
    for base, copy in bases:
        for suffix in SUFFIXES:
            if (named := base.with_name(base.name + suffix)).is_file():
                found.append((named, copy.with_name(copy.name + suffix)))
                break  # where case does not matter, the other suffix is the same file
    return found
