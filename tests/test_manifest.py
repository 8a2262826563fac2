"""The manifest and its published schema are of one mind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport import manifest
from kerasport.conventions import NAMES
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.model import DTYPES, NOTE_KINDS, StateDict, Tensor
from kerasport.readers.targets import UNKNOWN
from states import every_dtype, small_model

SCHEMA = Path(__file__).parent.parent / "schemas" / "manifest.v1.schema.json"
JSON = Any


def schema() -> JSON:
    return json.loads(SCHEMA.read_text())


def hashes(state: StateDict) -> dict[str, str]:
    return dict.fromkeys(state, "5f" * 32)


def document() -> JSON:
    state = small_model()
    return json.loads(manifest.text(state, hashes(state)))


def complaints(data: JSON, against: JSON | None = None) -> list[str]:
    """What a validator that is not ours says, as `path: rule`."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(against or schema())
    return sorted(
        f"{'/'.join(map(str, error.absolute_path))}: {error.validator}"
        for error in validator.iter_errors(data)
    )


def closed(part: JSON) -> JSON:
    """The schema where every object may have the members that it names, and no others."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    if "properties" in made and "required" in made:
        made["additionalProperties"] = False
    return made


def test_the_schema_is_a_schema() -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())


def test_every_manifest_that_is_written_is_valid() -> None:
    for state in (small_model(), every_dtype(), StateDict("keras", {}), StateDict(UNKNOWN, {})):
        text = manifest.text(state, hashes(state))
        assert complaints(json.loads(text)) == []
        assert manifest.parse(text) == json.loads(text)


def test_the_schema_names_every_member_that_is_written() -> None:
    assert complaints(document(), closed(schema())) == []


def test_a_member_that_the_schema_does_not_name_is_seen() -> None:
    """The twin of the test above."""
    data = document()
    data["tensors"]["stem/conv.bias"]["surprise"] = 1
    assert complaints(data, closed(schema())) == ["tensors/stem/conv.bias: additionalProperties"]


def test_a_later_minor_version_may_have_more_members() -> None:
    data = document() | {"schema_version": "1.7", "later": True}
    assert complaints(data) == []
    assert manifest.parse(json.dumps(data))["later"] is True


def test_the_enums_of_the_schema_are_those_of_the_code() -> None:
    definitions = schema()["$defs"]
    assert sorted(definitions["note"]["properties"]["kind"]["enum"]) == sorted(NOTE_KINDS)
    assert sorted(definitions["dtype"]["enum"]) == sorted(DTYPES)
    assert schema()["properties"]["convention"]["enum"] == sorted([*NAMES, UNKNOWN])
    assert schema()["properties"]["hash_algorithm"]["enum"] == [manifest.HASH_ALGORITHM]


def edited(path: str, value: JSON) -> JSON:
    """A valid manifest with one member replaced, or removed."""
    data = document()
    *parents, last = path.split(">")
    part = data
    for key in parents:
        part = part[int(key) if isinstance(part, list) else key]
    if value is ...:
        del part[last]
    else:
        part[int(last) if isinstance(part, list) else last] = value
    return data


BIAS = "tensors>stem/conv.bias"
WRONG = [
    ("producer", ..., "required", "producer: is missing"),
    ("layers", [], "type", "layers: expected an object, found an array"),
    ("convention", 3, "enum", "convention: expected a string, found an integer"),
    ("hash_algorithm", "md5", "enum", "hash_algorithm: expected 'blake3', found 'md5'"),
    ("source", "x", "anyOf", "source: expected an object or null, found a string"),
    ("source>bytes", "1", "anyOf", "source/bytes: expected an integer, found a string"),
    ("layers>norm>inferred", 1, "type", "norm/inferred: expected a boolean, found an integer"),
    (f"{BIAS}", None, "type", "stem/conv.bias: expected an object, found null"),
    (f"{BIAS}>dtype", "f33", "enum", "bias/dtype: expected one of bf16, bool"),
    (f"{BIAS}>shape", [-1], "minimum", r"bias/shape: expected extents, found \[-1\]"),
    (f"{BIAS}>shape", [True], "type", r"bias/shape: expected extents, found \[True\]"),
    (f"{BIAS}>at", [1], "type", r"bias/at: expected block labels, found \[1\]"),
    (f"{BIAS}>fill", "0", "type", "bias/fill: expected an integer or a number or null, found a st"),
    (f"{BIAS}>fill", True, "type", "bias/fill: expected an integer or a number or null, found a b"),
    (f"{BIAS}>trainable", 0, "type", "trainable: expected a boolean or null, found an integer"),
    (f"{BIAS}>sizes", {"out": "5"}, "type", "bias/sizes: expected a size for each axis"),
    (f"{BIAS}>hash", "5F" * 32, "pattern", "bias/hash: expected 64 hexadecimal digits, found"),
    (f"{BIAS}>hash", ..., "required", "bias/hash: is missing"),
    (f"{BIAS}>sources>0>stored", None, "type", "sources/0/stored: expected a string, found null"),
    (f"{BIAS}>sources>0>dtype", "x", "enum", "sources/0/dtype: expected one of"),
    ("notes>0>kind", "guessed", "enum", "notes/0/kind: expected one of averaged, "),
    ("notes>0>loss", ..., "required", "notes/0/loss: is missing"),
    ("omitted>0>reason", ..., "required", "omitted/0/reason: is missing"),
]


@pytest.mark.parametrize(
    ("path", "value", "rule", "message"),
    WRONG,
    ids=[f"{path}={value}" for path, value, *_ in WRONG],
)
def test_schema_and_code_refuse_the_same_for_the_same_reason(
    path: str, value: JSON, rule: str, message: str
) -> None:
    data = edited(path, value)
    (complaint,) = complaints(data)
    where, _, found = complaint.rpartition(": ")
    assert found == rule
    place = "/".join(path.split(">"))
    assert place.startswith(where.split("/0")[0]) or where.startswith(place)
    with pytest.raises(MalformedError, match=message) as raised:
        manifest.parse(json.dumps(data))
    assert len(str(raised.value).splitlines()) == 2


def test_all_problems_are_reported_together() -> None:
    data = edited(f"{BIAS}>dtype", "x")
    data["tensors"]["norm.running_mean"]["dtype"] = "y"
    with pytest.raises(MalformedError) as raised:
        manifest.parse(json.dumps(data))
    first, *lines = str(raised.value).splitlines()
    assert first == ("manifest: breaks schemas/manifest.v1.schema.json; convert the source anew:")
    assert [line.split(":")[0] for line in lines] == [
        "  tensors/norm.running_mean/dtype",
        "  tensors/stem/conv.bias/dtype",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON, found a fault: Expecting value"),
        ("{", "expected JSON, found a fault"),
        ("nope", "expected JSON, found a fault"),
        ("[1]", "expected a JSON object with a schema_version, found an array"),
        ("{}", "expected schema version 1.x, found None. Is this file a manifest"),
        ('{"schema_version": 1}', "expected schema version 1.x, found 1"),
        ('{"schema_version": "1"}', "expected schema version 1.x, found '1'"),
        ('{"schema_version": "1.x"}', "expected schema version 1.x, found '1.x'"),
        ('{"schema_version": "2.0"}', "expected schema version 1.x, found '2.0'. A newer"),
        ('{"schema_version": "0.9"}', "expected schema version 1.x, found '0.9'"),
        ('{"a": 1, "a": 2}', "found a fault: duplicate key 'a'"),
        ('{"a": NaN}', "found a fault: NaN is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "found a fault: Exceeds the limit"),
        ("[" * 100_000, "found it nested too deeply"),
        ('{"a":' * 100_000, "found it nested too deeply"),
    ],
)
def test_what_is_no_manifest_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(MalformedError, match=f"^m.json: .*{message}"):
        manifest.parse(text, where="m.json")


def test_the_text_is_canonical() -> None:
    """Keys sorted, no spaces, ASCII; and the same whatever order the facts come in."""
    state = small_model()

    def turned(part: JSON) -> JSON:
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(part)}
        return [turned(item) for item in part] if isinstance(part, list) else part

    text = manifest.text(state, hashes(state))
    given = turned(dict(state.manifest))
    given["layers"] = dict(reversed(given["layers"].items()))
    assert manifest.text(StateDict("torch", state.tensors, given), hashes(state)) == text
    assert text.isascii()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '"at":[],"dtype":"f32","fill":null,"hash":"5f5f' in text


def test_tensors_and_layers_keep_model_order() -> None:
    state = small_model()
    data = json.loads(manifest.text(state, hashes(state)))
    assert list(data["tensors"]) == ["stem/conv.weight", "stem/conv.bias", "norm.running_mean"]
    assert list(data["layers"]) == ["stem/conv", "norm"]


def test_the_length_does_not_depend_on_the_hashes() -> None:
    """Writers keep a place for the text before they know the hashes."""
    state = small_model()
    none = manifest.text(state, dict.fromkeys(state, manifest.NO_HASH))
    assert len(none) == len(manifest.text(state, hashes(state)))


def test_tensors_made_by_hand_have_a_manifest_too() -> None:
    tensor = Tensor.of("w", np.zeros((2, 3), np.float16), role="kernel", trainable=True)
    data = json.loads(manifest.text(StateDict("keras", {"w": tensor}), {"w": "00" * 32}))
    assert data["convention"] == "keras"
    assert data["source"] is None
    entry = data["tensors"]["w"]
    assert (entry["dtype"], entry["shape"], entry["role"]) == ("f16", [2, 3], "kernel")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_an_error(number: float) -> None:
    state = small_model()
    given = copy.deepcopy(dict(state.manifest))
    given["layers"]["norm"]["hints"]["epsilon"] = number
    with pytest.raises(UnsupportedError, match=r"cannot be written: .* finite numbers"):
        manifest.text(StateDict("torch", state.tensors, given), hashes(state))


def test_the_hash_is_blake3() -> None:
    """The first two test vectors that the authors of BLAKE3 publish: no byte, and one zero."""
    vectors: list[tuple[Callable[[], bytes], str]] = [
        (bytes, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (lambda: bytes(1), "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    ]
    for content, expected in vectors:
        hasher = manifest.hasher()
        hasher.update(content())
        assert hasher.hexdigest() == expected
