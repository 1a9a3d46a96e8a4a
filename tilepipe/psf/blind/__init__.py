"""The PSF of a picture, estimated from the picture alone: a slight one from its spectrum, a strong one free in form."""
