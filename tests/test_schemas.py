"""The published schemas of the command line's JSON: what it prints is valid, and little else is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from jsonschema import Draft202012Validator

import kerasport
from kerasport import manifest
from kerasport.conventions import NAMES
from kerasport.model import DTYPES, NOTE_KINDS, Report
from kerasport.readers.targets import UNKNOWN

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
FILES = sorted(path.name for path in FIXTURES.iterdir() if path.suffix in (".h5", ".keras"))
DOCUMENTS = ("report", "plan", "inspect")
JSON = Any


def schema(name: str) -> JSON:
    return json.loads((ROOT / "schemas" / f"{name}.v1.schema.json").read_text())


def complaints(data: JSON, against: JSON) -> list[str]:
    """What a validator that is not ours says, as `path: rule`."""
    return sorted(
        f"{'/'.join(map(str, error.absolute_path))}: {error.validator}"
        for error in Draft202012Validator(against).iter_errors(data)
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


def printed(value: JSON) -> JSON:
    """A document as a reader gets it: through JSON and back."""
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$id"] == f"urn:kerasport:schemas:{name}:1"


def test_there_are_fixtures() -> None:
    assert len(FILES) == 30


@pytest.mark.parametrize("file", FILES)
def test_every_document_of_a_fixture_is_valid_to_the_last_member(file: str, tmp_path: Path) -> None:
    rules = {name: closed(schema(name)) for name in DOCUMENTS}
    snapshot = kerasport.read(FIXTURES / file)
    assert complaints(printed(snapshot.to_json()), rules["inspect"]) == []
    for to in NAMES:
        plan = kerasport.plan(snapshot, to=to)
        assert complaints(printed(plan.to_json()), rules["plan"]) == []
        target = tmp_path / "x.safetensors"
        report = kerasport.convert(snapshot, target, to=to, strict=False)
        assert complaints(printed(report.to_json()), rules["report"]) == []
        report = kerasport.verify(target, against=snapshot)
        assert complaints(printed(report.to_json()), rules["report"]) == []
        state = kerasport.read(target).to_json()
        assert complaints(printed(state), rules["inspect"]) == []


def test_the_manifest_of_a_fixture_is_valid_to_the_last_member(tmp_path: Path) -> None:
    rules = closed(schema("manifest"))
    # A hint is what it is, and so are a configuration and a layer's own words.
    for file in FILES:
        snapshot = kerasport.read(FIXTURES / file)
        for to in NAMES:
            kerasport.convert(snapshot, tmp_path / "x.pt", to=to, strict=False)
            document = json.loads((tmp_path / "x.pt.json").read_text())
            assert complaints(document, rules) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_enums_of_a_schema_are_those_of_the_code(name: str) -> None:
    rules = schema(name)
    parts = rules["$defs"]
    assert (
        rules["properties"]["schema_version"] == schema("manifest")["properties"]["schema_version"]
    )
    if "dtype" in parts:
        assert sorted(parts["dtype"]["enum"]) == sorted(DTYPES)
    if "note" in parts:
        assert sorted(parts["note"]["properties"]["kind"]["enum"]) == sorted(NOTE_KINDS)
    convention = rules["properties"].get("convention", {}).get("enum")
    if name == "plan":
        assert convention == sorted(NAMES)
    if name == "report":
        assert convention == sorted([*NAMES, UNKNOWN])
        actions = get_args(get_type_hints(Report)["action"])
        assert rules["properties"]["action"]["enum"] == sorted(actions)


def valid(name: str) -> JSON:
    """A document with a note, an omission and a layer that was not recognised."""
    snapshot = kerasport.read(FIXTURES / "cnn.weights.h5")
    plan = kerasport.plan(snapshot, to="torch", strict=False)
    if name == "inspect":
        return printed(snapshot.to_json())
    if name == "plan":
        return printed(plan.to_json()) | {"problems": ["norm: unknown"]}
    return printed(plan.report(plan.apply(), "x.pt").to_json())


WRONG: list[tuple[str, str, JSON, str]] = [
    ("report", "action", "copy", "enum"),
    ("report", "convention", "jax", "enum"),
    ("report", "placed", -1, "minimum"),
    ("report", "tensors", "15", "type"),
    ("report", "target", ..., "required"),
    ("report", "schema_version", "2.0", "pattern"),
    ("report", "notes>0>kind", "guessed", "enum"),
    ("report", "notes>0>loss", 0, "type"),
    ("report", "omitted>0>reason", ..., "required"),
    ("plan", "convention", "unknown", "enum"),
    ("plan", "source>file", None, "type"),
    ("plan", "moves>0>dtype", "f33", "enum"),
    ("plan", "moves>0>shape", [-1], "minimum"),
    ("plan", "moves>0>name", ..., "required"),
    ("plan", "moves>0>fill", "0", "type"),
    ("plan", "moves>0>sources>0>stored", None, "type"),
    ("plan", "moves>0>sizes", {"out": 0.5}, "type"),
    ("plan", "layers>stem>inferred", None, "type"),
    ("plan", "layers>stem>hints", [], "type"),
    ("plan", "problems", ["same", "same"], "uniqueItems"),
    ("inspect", "totals>weights", ..., "required"),
    ("inspect", "totals>bytes", 1.5, "type"),
    ("inspect", "layers>0>class", 3, "type"),
    ("inspect", "layers>0>weights", {}, "type"),
    ("inspect", "layers>0>weights>0>axes", "kh kw", "type"),
    ("inspect", "layers>0>weights>0>dtype", "float32", "enum"),
    ("inspect", "layers>0>weights>0>trainable", "yes", "type"),
    ("inspect", "keras_version", 3, "type"),
]


@pytest.mark.parametrize(
    ("name", "path", "value", "rule"), WRONG, ids=[f"{n}-{p}-{v}" for n, p, v, _ in WRONG]
)
def test_a_document_with_one_fault_is_refused_for_that_fault(
    name: str, path: str, value: JSON, rule: str
) -> None:
    data = copy.deepcopy(valid(name))
    assert complaints(data, schema(name)) == []
    *parents, last = path.split(">")
    part = data
    for key in parents:
        part = part[int(key) if isinstance(part, list) else key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    (complaint,) = complaints(data, schema(name))
    where, _, found = complaint.rpartition(": ")
    assert found == rule
    assert "/".join(path.split(">")).startswith(where.partition("/sizes/")[0].rstrip("/0"))


def test_a_member_that_a_schema_does_not_name_is_seen() -> None:
    """Otherwise the closed schemas above would prove nothing."""
    for name in DOCUMENTS:
        data = valid(name) | {"surprise": 1}
        assert complaints(data, schema(name)) == []
        assert complaints(data, closed(schema(name))) == [": additionalProperties"]


def test_the_version_is_the_manifest_s() -> None:
    for name in DOCUMENTS:
        assert valid(name)["schema_version"] == manifest.SCHEMA_VERSION
