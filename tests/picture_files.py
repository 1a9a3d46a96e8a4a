"""Reading a whole picture in tests."""

from tilepipe.image.readers import open_image


def opened(path):
    """Return the description and all rows of a file."""
    reader = open_image(path)
    try:
        return reader.info, reader.rows(0, reader.info.height)
    finally:
        reader.close()
