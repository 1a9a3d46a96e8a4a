"""A piece is done when its record and its files agree, and only then."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilepipe.cache.ledger import FORMAT, Ledger
from tilepipe.cache.store import CheckedArray
from tilepipe.errors import CacheError
from tilepipe.system.files import write_durably


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
@given(length=st.integers(0, 500), garbage=st.binary(max_size=8))
@example(length=21, garbage=b'\x80"')
def test_a_torn_record_is_ignored(tmp_path_factory, length, garbage):
    ledger, file, record = recorded(tmp_path_factory.mktemp("piece"))
    whole = record.read_bytes()
    torn = whole[: min(length, len(whole) - 1)] + garbage
    if torn == whole:
        return  # the tail happens to be what was cut off
    record.write_bytes(torn)
    assert not ledger.accepts("0-0", [file])
    assert ledger.records() == {}


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_every_changed_byte_of_a_record_is_found(tmp_path_factory, place, flip):
    ledger, file, record = recorded(tmp_path_factory.mktemp("piece"))
    content = bytearray(record.read_bytes())
    content[place % len(content)] ^= flip
    record.write_bytes(content)
    assert not ledger.accepts("0-0", [file])


def recorded(folder):
    """A ledger with one piece; the piece's file and its record."""
    file = folder / "chunk"
    file.write_bytes(b"pixels")
    ledger = Ledger(folder / "ledger", "f")
    ledger.put("0-0", [file], seconds=0, peak=0)
    return ledger, file, folder / "ledger" / "0-0.json"


def test_a_record_of_another_format_is_ignored(tmp_path, monkeypatch):
    ledger, file, _ = recorded(tmp_path)
    monkeypatch.setattr("tilepipe.cache.ledger.FORMAT", FORMAT + 1)
    assert not ledger.accepts("0-0", [file])


def test_durable_writes_replace_and_leave_nothing_behind(tmp_path):
    target = tmp_path / "a" / "file"
    write_durably(target, b"one")
    write_durably(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_a_write_that_runs_out_of_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(descriptor):
        raise MemoryError

    write_durably(tmp_path / "file", b"one")
    monkeypatch.setattr("tilepipe.system.files.flush", fail)
    with pytest.raises(MemoryError):
        write_durably(tmp_path / "file", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"one")]


def array_in(folder, shape=(1, 64, 64), chunks=(1, 32, 32)):
    pieces = tuple(-(-length // size) for length, size in zip(shape[1:], chunks[1:], strict=True))
    return CheckedArray(folder / "a", shape, chunks, "float32", pieces, lambda index: [(0, *index)], "f")


def filled(folder):
    """An array of 2 x 2 pieces, all recorded."""
    array = array_in(folder)
    array.write(np.random.default_rng(0).random((1, 64, 64), np.float32), slice(None))
    for index in array.indices():
        array.record(index, 0.0, 0)
    return array


def test_a_chunk_of_zeros_is_written(tmp_path):
    array = array_in(tmp_path)
    array.write(np.zeros((1, 64, 64), np.float32), slice(None))
    assert all(file.is_file() for index in array.indices() for file in array.files(index))


def test_a_flipped_bit_in_a_chunk_raises(tmp_path):
    array = filled(tmp_path)
    (file,) = array.files((1, 0))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        array.read(slice(None))
    assert array.read(slice(None), slice(0, 32)).shape == (1, 32, 64), "the sound ones can be read"
    array.forget_damaged()
    assert [array.state(index) for index in array.indices()] == ["done", "done", "absent", "done"]


def test_a_missing_chunk_raises_and_is_not_taken_for_zeros(tmp_path):
    array = filled(tmp_path)
    (file,) = array.files((0, 1))
    file.unlink()
    with pytest.raises(CacheError, match="is missing"):
        array.read(slice(None), slice(5, 9), 40)
    assert array.read(slice(None), slice(5, 9), slice(0, 32)).all()


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_header_is_written_anew_and_costs_no_chunk(tmp_path, damage):
    before = filled(tmp_path).read(slice(None))
    header = tmp_path / "a.zarr" / "zarr.json"
    if damage is None:
        header.unlink()
    else:
        header.write_bytes(damage)
    again = array_in(tmp_path)
    assert np.array_equal(again.read(slice(None)), before)
    assert {again.state(index) for index in again.indices()} == {"done"}


def test_a_piece_is_taken_over_only_when_sound_and_made_from_the_same(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = filled(tmp_path / "old")
    for index in old.indices():
        old.record(index, 0.0, 0, inputs="pixels" if index != (0, 1) else "others")
    (damaged,) = old.files((1, 1))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    new = array_in(tmp_path / "new")
    assert [new.take_over(index, old, "pixels", 0) for index in new.indices()] == [True, False, True, False]
    assert np.array_equal(new.read(0, slice(0, 32), slice(0, 32)), old.read(0, slice(0, 32), slice(0, 32)))
    assert [new.state(index) for index in new.indices()] == ["done", "absent", "done", "absent"]
