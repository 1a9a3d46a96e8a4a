"""Every preset loads and runs."""

from pathlib import Path

import pytest
import tifffile

from tilepipe.settings import resolve

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


def test_there_are_presets():
    names = {"default", "low-memory", "camera-shake", "slight-misfocus", "lens-softness", "high-iso-denoise", "scanner"}
    assert names | {"microscope-poisson", "astronomy"} <= {config.stem for config in CONFIGS}


@pytest.mark.thorough
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_preset_loads_and_runs(config, small, tmp_path, tilepipe_command):
    effective = resolve(config=config)
    assert str(config) in effective.origins.values()
    picture, output = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(picture, tifffile.imread(small / "blurred.tif")[:200, :240], photometric="rgb", metadata=None)
    arguments = ["--psf", small / "psf.tif", "--config", config, "--cache", tmp_path / "c"]
    done = tilepipe_command("run", picture, "-o", output, *arguments, check=False)
    assert done.returncode == 0, done.stderr
    assert output.is_file()
