"""One file per format: what writes a picture."""
