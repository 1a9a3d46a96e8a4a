"""EXIF, ICC profiles, XMP and resolution: read from the input, written to the output."""
