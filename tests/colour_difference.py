"""CIEDE2000 (CIE 142-2001; Sharma, Wu, Dalal, Color Research and Application 30, 2005)."""

import numpy as np


def delta_e_2000(first, second):
    """Return the difference of L*a*b* colours, (..., 3) each; all weights are 1."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(lab, float), -1, 0) for lab in (first, second))
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = np.where(c1 * c2 == 0, 0, (h2 - h1 + 180) % 360 - 180)
    lightness, chroma, hue = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    level, c = (l1 + l2) / 2, (c1 + c2) / 2
    h = np.where(c1 * c2 == 0, h1 + h2, h1 + turn / 2) % 360
    shape = sum(
        weight * np.cos(np.radians(factor * h + shift))
        for weight, factor, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    )
    lightness /= 1 + 0.015 * (level - 50) ** 2 / np.sqrt(20 + (level - 50) ** 2)
    chroma, hue = chroma / (1 + 0.045 * c), hue / (1 + 0.015 * c * (1 + shape))
    rotation = -2 * np.sqrt(c**7 / (c**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    return np.sqrt(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue)
