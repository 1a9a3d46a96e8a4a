"""Every preset loads and runs."""

from pathlib import Path

import pytest

from tilepipe.planning import make_plan
from tilepipe.settings import resolve

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


def test_there_are_presets():
    assert {"default", "low-memory"} <= {config.stem for config in CONFIGS}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_preset_loads_and_runs(config, small, tmp_path):
    effective = resolve(config=config)
    assert str(config) in effective.origins.values()
    output = tmp_path / "out.tif"
    plan = make_plan(small / "blurred.tif", output, psf=small / "psf.tif", config=config, cache=str(tmp_path / "c"))
    plan.run()
    assert output.is_file()
