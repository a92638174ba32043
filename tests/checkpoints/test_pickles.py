"""A pickle is read without anything in it being run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from pixelwise.checkpoints.pickles import read_pickle
from pixelwise.errors import ModelFileError

ARRAYS = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "none": np.zeros((0, 3), np.float16),
    "flags": np.array([True, False]),
}


class Call:
    """Pickled as a call of a function with values."""

    def __init__(self, function, *values):
        self.call = function, values

    def __reduce__(self):
        return self.call


class Patched(Call):
    """The same, with a state that is set on what the call gives."""

    def __init__(self, state, function, *values):
        super().__init__(function, *values)
        self.state = state

    def __reduce__(self):
        return (*self.call, self.state)


def write(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back(tmp_path, protocol):
    given = {"model": OrderedDict(ARRAYS), "__author__": "me", "steps": np.float32(3), "more": [1, ("a", None)]}
    found = read_pickle(write(tmp_path / "a.pkl", given, protocol))
    for name, array in ARRAYS.items():
        assert np.array_equal(found["model"][name], array)
        assert found["model"][name].dtype == array.dtype
        assert found["model"][name].flags.writeable
    assert found["steps"] == 3
    assert (found["__author__"], found["more"]) == ("me", [1, ["a", None]])


def test_text_of_python_2_is_bytes(tmp_path):
    """Python 2 wrote an array's numbers as text; so does this pickle, made by hand."""
    numbers = np.array([1.5, -2.0, 3e-9], np.float32)
    data, new = numbers.tobytes(), pickle.dumps(numbers, protocol=2)
    start, end = new.rindex(b"h\x03X"), new.rindex(b"tq")  # the call of _codecs.encode that makes the bytes
    old = new[:start] + b"U" + bytes([len(data)]) + data + new[end:]
    (tmp_path / "old.pkl").write_bytes(old)
    assert np.array_equal(read_pickle(tmp_path / "old.pkl"), numbers)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("named", [os.system, eval, exec, open, getattr, __import__, np.load, np.frombuffer,
                                   pickle.loads, OrderedDict.fromkeys], ids=lambda f: f.__qualname__)  # fmt: skip
def test_what_could_run_is_refused_and_does_not_run(tmp_path, named, protocol):
    mark = tmp_path / "ran"
    path = write(tmp_path / "evil.pkl", {"w": Call(named, f"touch {mark}")}, protocol)
    with pytest.raises(ModelFileError, match=r"was not opened: it names .*a pickle can run code"):
        read_pickle(path)
    assert not mark.exists()


def test_the_same_pickle_would_run_elsewhere(tmp_path):
    """The test above means something: the standard reader does what such a file says."""
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {mark}")))
    assert mark.exists()


def test_the_stand_ins_cannot_be_changed(tmp_path):
    for state in ({"_make": 1}, (None, {"_make": 1}), (None, {"__class__": 1})):
        evil = pickle.dumps({"w": ARRAYS["weight"]}, protocol=2)
        inner = pickle.dumps(state, protocol=2)[2:-1]
        path = tmp_path / "evil.pkl"
        path.write_bytes(b"\x80\x02cnumpy\ndtype\n" + inner + b"b.")  # BUILD on the name itself
        with pytest.raises(ModelFileError, match="was not opened"):
            read_pickle(path)
        path.write_bytes(evil)
        assert np.array_equal(read_pickle(path)["w"], ARRAYS["weight"])


@pytest.mark.parametrize("value", [np.array([{}], object), np.array(["text"]), np.array([b"raw"]),
                                   np.zeros(2, "i4,f4"), np.array(["2020"], "M8[Y]"), range(3), print],
                         ids=lambda v: str(v)[:12])  # fmt: skip
def test_other_kinds_of_values_are_refused(tmp_path, value):
    with pytest.raises(ModelFileError, match="Only arrays of numbers"):
        read_pickle(write(tmp_path / "a.pkl", {"w": value}))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_damage_is_told(tmp_path, protocol):
    whole = pickle.dumps(ARRAYS, protocol=protocol)
    path = tmp_path / "cut.pkl"
    for cut in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError, match="was not opened"):
            read_pickle(path)


def test_a_size_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "huge.pkl"
    path.write_bytes(b"\x80\x05\x96" + (1 << 60).to_bytes(8, "little") + b"abc.")  # a byte array of 2^60 bytes
    with pytest.raises(ModelFileError, match="was not opened"):
        read_pickle(path)


def test_an_array_with_other_bytes_than_its_shape_says(tmp_path):
    good = pickle.dumps(np.zeros(4, np.uint8), protocol=2)
    bad = good.replace(b"K\x04\x85", b"K\x05\x85")
    assert bad != good
    (tmp_path / "a.pkl").write_bytes(bad)
    with pytest.raises(ModelFileError, match=r"shape \[5\] has 4 bytes"):
        read_pickle(tmp_path / "a.pkl")
