"""What `verify` is for: every way in which a target can fail to hold its source."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from kerasport.errors import KerasportError, UsageError, VerificationError
from kerasport.model import StateDict, Tensor
from states import FORMATS

FIXTURES = Path(__file__).parent.parent / "fixtures"
CNN = FIXTURES / "cnn.keras"
SEQUENCE = FIXTURES / "sequence.keras"
every_format = pytest.mark.parametrize("suffix", [suffix for suffix, _ in FORMATS.values()])


def state_of(source: Path, to: str = "torch", **options: Any) -> StateDict:
    return kerasport.plan(kerasport.read(source), to=to).apply(**options)


def with_values(state: StateDict, **arrays: Any) -> StateDict:
    """The same manifest over other values, as a writer with a fault would leave them."""
    changed = {
        name: Tensor.of(name, arrays[name], layout=tensor.layout, at=tensor.at, role=tensor.role)
        if name in arrays
        else tensor
        for name, tensor in state.items()
    }
    return replace(state, tensors=changed)


def refused(target: Path, against: Path, message: str) -> None:
    with pytest.raises(VerificationError, match=message) as raised:
        kerasport.verify(target, against=against)
    assert raised.value.exit_code == 6


@every_format
@pytest.mark.parametrize("to", ["keras", "torch", "onnx"])
@pytest.mark.parametrize("model", ["cnn", "sequence", "attention"])
def test_what_convert_wrote_is_proven(model: str, to: str, suffix: str, tmp_path: Path) -> None:
    source, target = FIXTURES / f"{model}.keras", tmp_path / f"x{suffix}"
    written = kerasport.convert(source, target, to=to)
    proven = kerasport.verify(target, against=source)
    assert replace(proven, action="convert") == written


@every_format
@pytest.mark.parametrize("bit", [0, 31])
def test_one_flipped_bit_is_found(bit: int, suffix: str, tmp_path: Path) -> None:
    """In the file itself, where no writer has a say: the lowest and the highest bit of a value."""
    target = tmp_path / f"x{suffix}"
    kerasport.convert(CNN, target, to="torch")
    values = state_of(CNN)["hidden.weight"].numpy().tobytes()
    content = bytearray(target.read_bytes())
    assert content.count(values) == 1
    place = content.index(values) + 4 * 13
    content[place + bit // 8] ^= 1 << bit % 8
    target.write_bytes(content)
    refused(
        target, CNN, "hidden/kernel: differs, first at|does not hold cnn.keras: .*hidden.weight"
    )


@every_format
def test_a_flipped_bit_with_a_fitting_hash_is_found(suffix: str, tmp_path: Path) -> None:
    state = state_of(CNN)
    array = state["mix.weight"].numpy().copy()
    array.view(np.uint32)[7, 0, 3, 1] ^= 1
    target = tmp_path / f"x{suffix}"
    kerasport.write(with_values(state, **{"mix.weight": array}), target)
    # Row 7 of `(in mult) 1 kh kw` is input channel 2 and multiplier 1 of `kh kw in mult`.
    refused(target, CNN, r"mix/kernel: differs, first at \(3, 1, 2, 1\): expected ")


@every_format
def test_two_tensors_of_one_shape_that_were_swapped_are_found(suffix: str, tmp_path: Path) -> None:
    state = state_of(CNN)
    one, other = "stem_norm.running_mean", "stem_norm.running_var"
    swapped = with_values(state, **{one: state[other].numpy(), other: state[one].numpy()})
    kerasport.write(swapped, tmp_path / f"x{suffix}")
    refused(tmp_path / f"x{suffix}", CNN, "stem_norm/moving_mean: differs.*\n.*moving_variance")


@every_format
def test_a_square_kernel_that_was_left_as_it_was_is_found(suffix: str, tmp_path: Path) -> None:
    """Its shape is right whatever one does."""
    state = state_of(SEQUENCE)
    name = "summary.weight_hh_l0"
    array = state[name].numpy()
    gates = [array[n : n + 13] for n in (13, 0, 26)]  # r z h for z r h
    kerasport.write(with_values(state, **{name: np.concatenate(gates)}), tmp_path / f"x{suffix}")
    refused(tmp_path / f"x{suffix}", SEQUENCE, "summary/recurrent_kernel: differs, first at")


@every_format
def test_a_wrong_fill_is_found(suffix: str, tmp_path: Path) -> None:
    state = state_of(SEQUENCE)
    ones = np.ones(28, np.float32)
    kerasport.write(with_values(state, **{"reader.bias_hh_l0": ones}), tmp_path / f"x{suffix}")
    refused(
        tmp_path / f"x{suffix}", SEQUENCE, "reader.bias_hh_l0: expected 0.* the source has nothing"
    )


@every_format
def test_a_negative_zero_is_no_zero(suffix: str, tmp_path: Path) -> None:
    state = state_of(SEQUENCE)
    zeros = np.full(28, -0.0, np.float32)
    kerasport.write(with_values(state, **{"reader.bias_hh_l0": zeros}), tmp_path / f"x{suffix}")
    refused(tmp_path / f"x{suffix}", SEQUENCE, "reader.bias_hh_l0: expected 0")


@every_format
def test_another_source_is_found(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"x{suffix}"
    kerasport.convert(CNN, target, to="torch")
    refused(target, SEQUENCE, "stem/kernel: is not in the source")
    refused(target, FIXTURES / "cnn.tf_keras.keras", "stem/kernel: differs, first at")
    kerasport.verify(target, against=FIXTURES / "cnn.legacy.h5")


# ------------------------------------------------------------------------------ changes to one file


def repacked(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """A safetensors file taken apart by struct and json alone, changed, and put together again."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    manifest = json.loads(metadata["kerasport"])
    values = {
        name: content[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]]
        for name, entry in header.items()
    }
    entries = {name: {**entry, "manifest": manifest} for name, entry in header.items()}
    change(entries, values)
    out: dict[str, Any] = {"__metadata__": {**metadata, "kerasport": json.dumps(manifest)}}
    start = 0
    for name, data in values.items():
        entry = entries[name]
        offsets = [start, start + len(data)]
        out[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": offsets}
        start += len(data)
    text = json.dumps(out).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values.values()))
    return path


def manifest_of(entries: Mapping[str, Any]) -> Any:
    return next(iter(entries.values()))["manifest"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    kerasport.convert(SEQUENCE, path, to="torch")
    return path


def test_a_file_put_together_again_unchanged_is_proven(target: Path) -> None:
    """The tests below change one thing; this one shows that nothing else is changed."""
    repacked(target, lambda entries, values: None)
    kerasport.verify(target, against=SEQUENCE)


def test_a_missing_tensor_is_found(target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        del entries["logits.bias"], values["logits.bias"]

    repacked(target, change)
    refused(target, SEQUENCE, "logits.bias: is missing in the file")


def test_a_tensor_that_is_missing_in_the_manifest_too_is_found(target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        del manifest_of(entries)["tensors"]["logits.bias"], entries["logits.bias"]
        del values["logits.bias"]

    repacked(target, change)
    refused(target, SEQUENCE, "logits/bias: is in the source and nowhere in the target")


def test_an_extra_tensor_is_found(target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        entries["extra"], values["extra"] = entries["logits.bias"], values["logits.bias"]

    repacked(target, change)
    refused(target, SEQUENCE, "extra: has no entry in the manifest")


def test_an_extra_tensor_that_is_in_the_manifest_too_is_found(target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        entries["extra"], values["extra"] = entries["logits.bias"], values["logits.bias"]
        tensors = manifest_of(entries)["tensors"]
        tensors["extra"] = {**tensors["logits.bias"], "sources": []}

    repacked(target, change)
    refused(target, SEQUENCE, "extra: comes from no source, and the manifest does not say what")


@pytest.mark.parametrize(
    ("tensor", "layout"),
    [
        ("summary.weight_hh_l0", "([z r h] unit) hidden"),
        ("summary.weight_ih_l0", "in ([r z h] unit)"),
        ("reader.weight_ih_l0", "([f i c o] unit) in"),
        ("logits.weight", "in out"),
        ("logits.weight", "out somewhere"),
        ("logits.bias", "("),
        ("logits.bias", "out 1"),
    ],
)
def test_a_manifest_with_another_layout_is_found(tensor: str, layout: str, target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        manifest_of(entries)["tensors"][tensor]["layout"] = layout

    repacked(target, change)
    refused(target, SEQUENCE, "does not hold sequence.keras:")


def test_a_manifest_with_another_hash_is_found(target: Path) -> None:
    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        manifest_of(entries)["tensors"]["logits.bias"]["hash"] = "0" * 64

    repacked(target, change)
    refused(target, SEQUENCE, "logits.bias: its content has another hash than the manifest says")


def test_a_part_that_is_there_twice_is_found(target: Path) -> None:
    """Both tensors claim the input's half of the bias; the recurrent half is nowhere."""

    def change(entries: dict[str, Any], values: dict[str, bytes]) -> None:
        tensors = manifest_of(entries)["tensors"]
        tensors["summary.bias_hh_l0"] = tensors["summary.bias_ih_l0"]
        values["summary.bias_hh_l0"] = values["summary.bias_ih_l0"]

    repacked(target, change)
    refused(target, SEQUENCE, "summary/bias: the target holds some of its elements twice")


@every_format
def test_a_target_that_was_cut_off_is_found(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"x{suffix}"
    kerasport.convert(SEQUENCE, target, to="torch")
    content = target.read_bytes()
    target.write_bytes(content[:-10])
    with pytest.raises(KerasportError) as raised:
        kerasport.verify(target, against=SEQUENCE)
    assert raised.value.exit_code in (3, 6)


def test_a_target_without_a_manifest_cannot_be_verified(tmp_path: Path) -> None:
    kerasport.convert(CNN, tmp_path / "x.pt", to="torch")
    (tmp_path / "x.pt.json").unlink()
    with pytest.raises(UsageError, match=r"x.pt: expected a manifest of kerasport's, found none"):
        kerasport.verify(tmp_path / "x.pt", against=CNN)


def test_a_cast_is_proven_by_the_same_cast(tmp_path: Path) -> None:
    for dtype in ("f16", "bf16", "f64", "f8_e4m3fn"):
        kerasport.convert(CNN, tmp_path / "x.parquet", to="torch", dtype=dtype)
        kerasport.verify(tmp_path / "x.parquet", against=CNN)
    state = state_of(CNN, dtype="f16")
    array = state["hidden.weight"].numpy().copy()
    array.view(np.uint16)[3, 5] ^= 1
    kerasport.write(with_values(state, **{"hidden.weight": array}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", CNN, "hidden/kernel: differs")


def test_whatever_a_manifest_says_is_proven_or_refused(target: Path) -> None:
    """Strangers edit manifests too: no value of any member is a bug."""
    rng = random.Random(7)
    values: list[Any] = [None, True, -1, 0, 5, 10**30, 0.5, "", "in out", "é", [], [3], [-1], {}]
    content = target.read_bytes()

    def spots(part: Any) -> list[tuple[Any, Any]]:
        keys = list(part) if isinstance(part, dict) else range(len(part))
        here = [(part, key) for key in keys]
        inside = (p for key in keys if isinstance(part[key], dict | list) for p in spots(part[key]))
        return [*here, *inside]

    def change(entries: dict[str, Any], _: dict[str, bytes]) -> None:
        part, key = rng.choice(spots(manifest_of(entries)))
        part[key] = rng.choice(values)

    codes = []
    for _ in range(200):
        target.write_bytes(content)
        repacked(target, change)
        try:
            kerasport.verify(target, against=SEQUENCE)
            codes.append(0)
        except KerasportError as error:
            codes.append(error.exit_code)
    assert set(codes) <= {0, 2, 6}
    assert min(codes.count(0), codes.count(6)) > 10
