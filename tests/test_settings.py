"""Settings: which layer wins, where a value came from, and what a bad one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.errors import InputNotFoundError, SettingsError, TilepipeError
from tilepipe.settings import PRIORITIES, EffectiveSettings, Settings, parse_priority, resolve
from tilepipe.units import parse_bytes


@pytest.fixture(autouse=True)
def nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, no tilepipe.toml but the test's own."""
    for name in list(os.environ):
        if name.startswith("TILEPIPE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


LAYERS = ["tilepipe.toml", "other.toml", "environment", "--set", "flag"]
"""From weak to strong; other.toml is what --config names."""


def resolve_with(layers: list[str], monkeypatch: pytest.MonkeyPatch) -> EffectiveSettings:
    """Give `tile` another value in each of `layers`: 101 in the first, 102 in the second ..."""
    value = {layer: 101 + index for index, layer in enumerate(LAYERS)}
    for file in LAYERS[:2]:
        if file in layers:
            Path(file).write_text(f"tile = {value[file]}\n")
    if "environment" in layers:
        monkeypatch.setenv("TILEPIPE_TILE", str(value["environment"]))
    return resolve(
        flags={"tile": value["flag"] if "flag" in layers else None},
        sets=[f"tile={value['--set']}"] if "--set" in layers else [],
        config="other.toml" if "other.toml" in layers else None,
    )


def test_defaults_stand_when_nothing_is_said():
    effective = resolve()
    assert effective.settings == Settings()
    assert set(effective.origins.values()) == {"default"}
    assert set(effective.origins) == set(Settings.__struct_fields__)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_beats_the_default_and_is_named(layer, monkeypatch):
    effective = resolve_with([layer], monkeypatch)
    assert effective.settings.tile == 101 + LAYERS.index(layer)
    assert effective.origins["tile"] == layer
    assert effective.origins["halo"] == "default"


@pytest.mark.parametrize("top", range(len(LAYERS)))
def test_the_stronger_layer_wins_over_all_weaker_ones(top, monkeypatch):
    effective = resolve_with(LAYERS[: top + 1], monkeypatch)
    assert effective.settings.tile == 101 + top
    assert effective.origins["tile"] == LAYERS[top]


@pytest.mark.parametrize(("weak", "strong"), [(a, b) for i, a in enumerate(LAYERS) for b in LAYERS[i + 1 :]])
def test_any_two_layers_keep_their_order(weak, strong, monkeypatch):
    assert resolve_with([weak, strong], monkeypatch).origins["tile"] == strong


def test_layers_merge_key_by_key(monkeypatch):
    Path("tilepipe.toml").write_text('tile = 512\nmemory = "2GB"\npriority = "denoise"\n')
    monkeypatch.setenv("TILEPIPE_MEMORY", "1GB")
    effective = resolve(flags={"jobs": 2, "halo": None}, sets=["priority=0.5"])
    settings = effective.settings
    assert (settings.tile, settings.memory, settings.priority_value, settings.jobs) == (512, "1GB", 0.5, 2)
    origins = {key: origin for key, origin in effective.origins.items() if origin != "default"}
    assert origins == {"tile": "tilepipe.toml", "memory": "environment", "priority": "--set", "jobs": "flag"}


def test_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("TILEPIPE_TILE", "")
    assert resolve().origins["tile"] == "default"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_words_for_yes_and_no_are_understood(text, value, monkeypatch):
    assert resolve(sets=[f"keep_cache={text}"]).settings.keep_cache is value
    monkeypatch.setenv("TILEPIPE_KEEP_CACHE", text)
    assert resolve().settings.keep_cache is value


def test_set_takes_dashes_spaces_and_further_equal_signs():
    settings = resolve(sets=["keep-cache = false", "psf=a=b.tif", "tile = 512"]).settings
    assert (settings.keep_cache, settings.psf, settings.tile) == (False, "a=b.tif", 512)


def test_of_two_equal_sets_the_last_counts():
    assert resolve(sets=["tile=100", "tile=200"]).settings.tile == 200


# --- mistakes


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("tiles", "tile"), ("memroy", "memory"), ("prioritiy", "priority"), ("Jobs", "jobs"), ("keepcache", "keep_cache")],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    with pytest.raises(SettingsError, match=f"--set: unknown setting '{key}'; did you mean '{nearest}'"):
        resolve(sets=[f"{key}=1"])


def test_an_unknown_key_near_nothing_lists_all():
    with pytest.raises(SettingsError, match=r"unknown setting 'zzz'; known settings are psf, blur,.*verify"):
        resolve(flags={"zzz": 1})


def test_an_unknown_key_in_a_file_names_the_file():
    Path("other.toml").write_text("tle = 512\n")
    with pytest.raises(SettingsError, match=r"other\.toml: unknown setting 'tle'; did you mean 'tile'"):
        resolve(config="other.toml")
    Path("tilepipe.toml").write_text("[memory]\nlimit = 3\n")
    with pytest.raises(SettingsError, match=r"tilepipe\.toml: memory"):
        resolve()


BAD = [
    ("tile", 32, "tile is 32 px; the smallest is 64"),
    ("tile", "big", "tile = 'big'"),
    ("tile", 99.5, r"tile = 99\.5"),
    ("halo", -1, r"halo is -1 px; it must lie in 0\.\.1024"),
    ("halo", 1025, "halo is 1025 px"),
    ("jobs", 0, "jobs is 0; at least 1"),
    ("priority", 3, r"priority is 3; it must lie in -1"),
    ("priority", "sharp", "priority is 'sharp'; it must be denoise, balanced, deblur"),
    ("priority", "nan", "priority is nan"),
    ("memory", "12", "memory is '12' .*did you mean 12MB"),
    ("memory", "lots", "memory is 'lots'; write a size such as 512MB"),
    ("memory", "5 apples", "5 apples"),
    ("memory", "-1GB", "-1GB"),
    ("scheduler", "foo", "scheduler is 'foo'; it must be threads, tcp://HOST:PORT, tls://HOST:PORT or file:PATH"),
    ("solver", "magic", "solver = 'magic'"),
    ("tolerance", "9", "tolerance is 9; it must lie in 0.25"),
    ("dtype", "float64", "dtype = 'float64'"),
    ("verify", "never", "verify = 'never'"),
    ("keep_cache", "maybe", "keep_cache = 'maybe'"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=lambda part: str(part)[:20])
def test_a_bad_value_is_told_with_its_layer_and_the_way_out(key, value, message, monkeypatch):
    with pytest.raises(SettingsError, match=f"flag: .*{message}") as caught:
        resolve(flags={key: value})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="--set: "):
        resolve(sets=[f"{key}={value}"])
    monkeypatch.setenv(f"TILEPIPE_{key.upper()}", str(value))
    with pytest.raises(SettingsError, match="environment: "):
        resolve()


def test_a_bad_value_is_told_even_if_a_stronger_layer_hides_it():
    Path("tilepipe.toml").write_text("tile = 3\n")
    with pytest.raises(SettingsError, match=r"tilepipe\.toml: tile is 3"):
        resolve(flags={"tile": 512})


def test_set_without_an_equal_sign_is_told():
    with pytest.raises(SettingsError, match=r"--set 'tile' has no '='.*--set tile=512"):
        resolve(sets=["tile"])


@pytest.mark.parametrize("text", ["tile = ", "tile 512", "tile = 1\ntile = 2\n", "[", "\x00"])
def test_broken_toml_is_told_with_the_file(text):
    Path("other.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"other\.toml is not valid TOML"):
        resolve(config="other.toml")


def test_a_file_that_is_no_text_or_a_folder_is_told(tmp_path):
    Path("other.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"other\.toml"):
        resolve(config=tmp_path / "other.toml")
    with pytest.raises(TilepipeError):
        resolve(config=tmp_path)


def test_a_missing_config_is_told():
    with pytest.raises(InputNotFoundError, match=r"no\.toml does not exist"):
        resolve(config="no.toml")


# --- sizes and priorities


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512 * 10**6),
        ("512MiB", 512 * 2**20),
        ("512 mb", 512 * 10**6),
        (" 2GB ", 2 * 10**9),
        ("2gib", 2 * 2**30),
        ("0.5GB", 5 * 10**8),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("2000KB", 2 * 10**6),
        ("2000kib", 2000 * 1024),
        ("123456789", 123456789),
        ("123456789B", 123456789),
        (123456789, 123456789),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size
    assert resolve(sets=[f"memory={text}"]).settings.memory_bytes == size


@pytest.mark.parametrize("text", ["", "MB", "1,5GB", "1e9", "512 M B", "512XB", "nan", "0GB", "999KB", "12", 12])
def test_what_is_no_size_is_told(text):
    with pytest.raises(SettingsError, match="memory is"):
        parse_bytes(text)


@given(st.floats(-1, 1))
def test_any_priority_between_the_ends_is_itself(value):
    assert parse_priority(value) == value
    assert parse_priority(str(value)) == value


def test_priority_names_are_its_ends_and_its_middle():
    assert {name: parse_priority(name) for name in PRIORITIES} == {"denoise": -1, "balanced": 0, "deblur": 1}
    assert Settings(priority="deblur").priority_value == 1


@pytest.mark.parametrize("scheduler", ["threads", "tcp://10.0.0.1:8786", "tls://host:1", "file:/shared/scheduler.json"])
def test_schedulers(scheduler):
    assert resolve(flags={"scheduler": scheduler}).settings.scheduler == scheduler


def test_settings_made_by_hand_are_checked_as_well():
    with pytest.raises(SettingsError, match="tile is 32"):
        Settings(tile=32)
    with pytest.raises(AttributeError):
        Settings().tile = 5


def test_a_file_found_in_the_folder_chooses_neither_place_nor_machine(tmp_path, monkeypatch):
    """It may have come with somebody's pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tilepipe.toml").write_text('cache = "/etc"\nscheduler = "tcp://far:1"\nsave_mask = "m.tif"\ntile = 99')
    found = resolve()
    assert (found.settings.cache, found.settings.scheduler, found.settings.save_mask) == (None, "threads", None)
    assert found.settings.tile == 99
    assert found.ignored == ("cache", "scheduler", "save_mask")
    assert "--config tilepipe.toml accepts them" in found.note
    accepted = resolve(config="tilepipe.toml")
    assert (accepted.settings.cache, accepted.settings.scheduler) == ("/etc", "tcp://far:1")
    assert accepted.ignored == ()
    assert accepted.note == ""
