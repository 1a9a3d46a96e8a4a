"""Scenes and reference models shared by tests, benchmarks and the demo; also usable by external tests."""

from tilepipe.testing.reference import plain_denoise, plain_restore, restore_whole
from tilepipe.testing.scenes import BlurredScene, Scene, blur, degrade, psnr, write_scene

__all__ = [
    "BlurredScene",
    "Scene",
    "blur",
    "degrade",
    "plain_denoise",
    "plain_restore",
    "psnr",
    "restore_whole",
    "write_scene",
]
