"""EXIF, ICC profiles, XMP and resolution, from one file to the other."""
