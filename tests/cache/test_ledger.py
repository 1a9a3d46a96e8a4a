"""A piece is done when its record and its files agree, and only then."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilepipe.cache.ledger import Ledger, write_durably
from tilepipe.cache.store import open_array
from tilepipe.errors import CacheError


@pytest.fixture
def piece(tmp_path):
    file = tmp_path / "chunk"
    file.write_bytes(bytes(range(256)) * 8)
    ledger = Ledger(tmp_path / "ledger", "recipe-a")
    ledger.put("1-2", [file], seconds=1.0, peak=10)
    return ledger, file


def test_what_was_put_is_accepted(piece):
    ledger, file = piece
    assert ledger.accepts("1-2", [file])
    assert ledger.accepts("1-2", [file], full=False)
    assert ledger.get("1-2").pid == os.getpid()


def test_an_absent_record_or_file_is_not_done(piece):
    ledger, file = piece
    assert not ledger.accepts("1-3", [file])
    file.unlink()
    assert not ledger.accepts("1-2", [file])
    assert not ledger.accepts("1-2", [file], full=False)


def test_another_recipe_is_not_done(piece, tmp_path):
    _, file = piece
    assert not Ledger(tmp_path / "ledger", "recipe-b").accepts("1-2", [file])


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 2047), flip=st.integers(1, 255))
def test_every_changed_byte_is_found(tmp_path_factory, position, flip):
    folder = tmp_path_factory.mktemp("piece")
    file = folder / "chunk"
    data = bytearray(bytes(range(256)) * 8)
    file.write_bytes(data)
    ledger = Ledger(folder / "ledger", "f")
    ledger.put("0-0", [file], seconds=0, peak=0)
    data[position] ^= flip
    file.write_bytes(data)
    assert not ledger.accepts("0-0", [file])


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, 400), garbage=st.binary(max_size=8).filter(lambda tail: b"}" not in tail))
@example(length=21, garbage=b'\x80"')
def test_a_torn_record_is_ignored(tmp_path_factory, length, garbage):
    folder = tmp_path_factory.mktemp("piece")
    file = folder / "chunk"
    file.write_bytes(b"pixels")
    ledger = Ledger(folder / "ledger", "f")
    ledger.put("0-0", [file], seconds=0, peak=0)
    record = folder / "ledger" / "0-0.json"
    whole = record.read_bytes()
    # Without a closing brace: a tail that happens to complete the record again does not tear it.
    record.write_bytes(whole[: min(length, len(whole) - 1)] + garbage)
    assert not ledger.accepts("0-0", [file])
    assert ledger.records() == {}


def test_durable_writes_replace_and_leave_nothing_behind(tmp_path):
    target = tmp_path / "a" / "file"
    write_durably(target, b"one")
    write_durably(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_a_chunk_of_zeros_is_written(tmp_path):
    array = open_array(tmp_path / "a.zarr", (4, 8, 8), (4, 4, 4), "float32")
    array.write(np.zeros((4, 8, 8), np.float32), slice(None), slice(None), slice(None))
    assert all(array.chunk_file(0, i, j).is_file() for i in range(2) for j in range(2))


def test_a_flipped_bit_in_a_chunk_raises(tmp_path):
    array = open_array(tmp_path / "a.zarr", (1, 64, 64), (1, 64, 64), "float32")
    array.write(np.random.default_rng(0).random((1, 64, 64)), slice(None), slice(None), slice(None))
    file = array.chunk_file(0, 0, 0)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        array.read(slice(None))


def test_an_array_of_another_shape_is_made_anew(tmp_path):
    first = open_array(tmp_path / "a.zarr", (1, 64, 64), (1, 64, 64), "float32")
    first.write(np.ones((1, 64, 64), np.float32), slice(None))
    again = open_array(tmp_path / "a.zarr", (1, 64, 64), (1, 64, 64), "float32")
    assert again.read(slice(None)).all()
    other = open_array(tmp_path / "a.zarr", (1, 32, 64), (1, 32, 64), "float32")
    assert not other.chunk_file(0, 0, 0).exists()
