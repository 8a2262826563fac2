"""Vocabularies, bin boundaries and salts travel in the manifest of every target.

The expected values are what Keras's own layers say: `get_vocabulary`, `bin_boundaries`, and for the
files that Keras writes, what it wrote.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from jsonschema import Draft202012Validator

import kerasport
from kerasport import manifest
from kerasport.cli import main
from kerasport.errors import MalformedError
from kerasport.readers import lookups
from kerasport.transpose import plan

L = keras.layers
ROOT = Path(__file__).parent.parent
TABLES = ROOT / "fixtures" / "tables.keras"
VOCABULARY = "assets/layers/string_lookup/vocabulary.txt"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The fixture as Keras loads it."""
    return keras.models.load_model(TABLES)


@pytest.fixture(scope="module")
def found() -> Mapping[str, Mapping[str, Any]]:
    return kerasport.read(TABLES).tables


# --------------------------------------------------------------------------------- what is found


def test_every_vocabulary_is_that_of_the_layer(
    model: keras.Model, found: Mapping[str, Mapping[str, Any]]
) -> None:
    """Index by index, the tokens for masks and for the unknown included."""
    layers = [layer for layer in model.layers if hasattr(layer, "get_vocabulary")]
    assert len(layers) == 5
    for layer in layers:
        expected = list(layer.get_vocabulary())
        assert found[layer.name]["values"] == expected, layer.name
        assert found[layer.name]["class"] == type(layer).__name__
        assert found[layer.name]["role"] == "vocabulary"
        assert found[layer.name]["note"] is None


def test_boundaries_and_salts_are_those_of_the_layer(
    model: keras.Model, found: Mapping[str, Mapping[str, Any]]
) -> None:
    bins, salted = found["bins"], found["salted"]
    assert (bins["role"], salted["role"]) == ("boundaries", "hash")
    np.testing.assert_array_equal(bins["values"], model.get_layer("bins").bin_boundaries)
    assert salted["options"]["salt"] == [13, 37]
    assert salted["options"]["num_bins"] == 7


def test_nothing_is_a_table_twice(found: Mapping[str, Mapping[str, Any]]) -> None:
    """A TextVectorization saves its vocabulary a second time, for the layer inside it."""
    assert set(found) == {"text", "rare", "learned", "given", "whole", "bins", "salted"}
    with zipfile.ZipFile(TABLES) as archive:
        assert sum(name.startswith("assets/") for name in archive.namelist()) == 6


def test_a_table_says_how_it_is_used_and_where_it_is_from(
    found: Mapping[str, Mapping[str, Any]],
) -> None:
    options = found["learned"]["options"]
    assert (options["num_oov_indices"], options["mask_token"]) == (2, "")
    assert found["text"]["options"]["standardize"] == "lower_and_strip_punctuation"
    assert found["given"]["source"] == "config"
    assert found["whole"]["source"] == "assets/layers/integer_lookup/vocabulary.txt"


def test_weights_of_rare_tokens_are_tensors(model: keras.Model) -> None:
    snapshot = kerasport.read(TABLES)
    assert [(layer.path, layer.kind) for layer in snapshot.layers] == [("rare", "Lookup")]
    (tensor,) = snapshot.tensors
    inner = model.get_layer("rare")._lookup_layer
    np.testing.assert_array_equal(tensor.numpy(), inner.idf_weights_const.numpy())
    assert [omission.reason for omission in snapshot.omitted] == ["shared with rare/idf_weights"]
    for to, name in (("torch", "rare.idf_weights"), ("onnx", "rare.weights")):
        state = plan(snapshot, to=to).apply()
        np.testing.assert_array_equal(state[name].numpy(), tensor.numpy())


def test_a_live_model_has_the_tables_of_its_file(
    model: keras.Model, found: Mapping[str, Mapping[str, Any]]
) -> None:
    assert kerasport.read(model).tables == found


def test_tables_of_models_in_models_are_found() -> None:
    """The path is the layer's, however deep, and however many of its class come before it."""
    inner_in = keras.Input((1,), dtype="string")
    words = L.StringLookup(name="words")
    words.adapt(["a", "b", "b"])
    inner = keras.Model(inner_in, words(inner_in), name="inner")
    outer_in = keras.Input((1,), dtype="string")
    first = L.StringLookup(name="first")
    first.adapt(["c"])
    outputs = [first(outer_in), inner(outer_in)]
    snapshot = kerasport.read(keras.Model(outer_in, outputs))
    assert {path: table["values"] for path, table in snapshot.tables.items()} == {
        "first": ["[UNK]", "c"],
        "inner/words": ["[UNK]", "b", "a"],
    }


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (L.StringLookup(vocabulary=["a", "b"]), "string"),
        (L.StringLookup(vocabulary=["a", "b"], mask_token="", num_oov_indices=3), "string"),
        (L.StringLookup(vocabulary=["", "[UNK]", "a"], mask_token=""), "string"),
        (L.StringLookup(vocabulary=["a"], mask_token="", output_mode="multi_hot"), "string"),
        (L.StringLookup(vocabulary=["a"], num_oov_indices=0), "string"),
        (L.IntegerLookup(vocabulary=[3, 4]), "int64"),
        (L.IntegerLookup(vocabulary=[3, 4], mask_token=0), "int64"),
        (L.TextVectorization(vocabulary=["a", "b"]), "string"),
        (L.TextVectorization(vocabulary=["a"], output_mode="count"), "string"),
    ],
    ids=str,
)
def test_a_given_vocabulary_has_the_tokens_that_keras_puts_before_it(
    layer: Any, dtype: str
) -> None:
    inputs = keras.Input(() if isinstance(layer, L.TextVectorization) else (1,), dtype=dtype)
    (table,) = kerasport.read(keras.Model(inputs, layer(inputs))).tables.values()
    assert table["source"] == "config"
    assert table["values"] == list(layer.get_vocabulary())


def test_older_files_have_the_tables_of_their_configuration(tmp_path: Path) -> None:
    """HDF5 of old keeps what was given, and nothing of what was learned; that is said."""
    inputs = keras.Input((1,), dtype="string")
    learned = L.StringLookup(name="learned")
    learned.adapt(["a"])
    given = L.StringLookup(vocabulary=["b"], name="given")
    head = L.Dense(2, name="head")(L.CategoryEncoding(2, output_mode="one_hot")(given(inputs)))
    keras.Model(inputs, [learned(inputs), head]).save(tmp_path / "m.h5")
    tables = kerasport.read(tmp_path / "m.h5").tables
    assert tables["given"]["values"] == ["[UNK]", "b"]
    assert tables["learned"]["values"] is None
    assert tables["learned"]["note"] == "its vocabulary is not in the file"


# ---------------------------------------------------------------------------- they travel along


@pytest.mark.parametrize("to", ["torch", "onnx", "keras"])
@pytest.mark.parametrize("suffix", [".safetensors", ".parquet", ".arrow", ".pt", ".onnx"])
def test_tables_are_in_every_target(to: str, suffix: str, tmp_path: Path) -> None:
    source = kerasport.read(TABLES)
    kerasport.convert(source, tmp_path / f"t{suffix}", to=to)
    back = kerasport.read(tmp_path / f"t{suffix}")
    assert back.tables == source.tables
    kerasport.verify(tmp_path / f"t{suffix}", against=TABLES)


def test_a_changed_vocabulary_is_not_verified(tmp_path: Path) -> None:
    """The twin: one token in the place of another, or a table too few."""
    kerasport.convert(TABLES, tmp_path / "t.safetensors", to="torch")
    text = "\n".join(["", "[UNK]", "[UNK]", "b", "ç", "z"])
    other = changed(tmp_path, {VOCABULARY: text.encode()})
    with pytest.raises(kerasport.KerasportError) as caught:
        kerasport.verify(tmp_path / "t.safetensors", against=other)
    assert "learned: its table differs from the source's" in str(caught.value)
    without = kerasport.read(ROOT / "fixtures" / "cnn.keras")
    with pytest.raises(kerasport.KerasportError, match="salted: its table is not in the source"):
        kerasport.verify(tmp_path / "t.safetensors", against=without)


def test_the_schema_knows_every_table() -> None:
    schema = json.loads((ROOT / "schemas" / "manifest.v1.schema.json").read_text())
    state = plan(kerasport.read(TABLES), to="torch").apply()
    text = manifest.text(state, dict.fromkeys(state, manifest.NO_HASH))
    assert not list(Draft202012Validator(schema).iter_errors(json.loads(text)))
    assert manifest.parse(text)["tables"] == state.manifest["tables"]
    assert set(schema["$defs"]["table"]["properties"]["role"]["enum"]) == set(lookups.ROLES)


@pytest.mark.parametrize(
    ("member", "value", "complaint"),
    [
        ("values", 3, "tables/text/values: expected an array or null, found an integer"),
        ("note", [], "tables/text/note: expected a string or null, found an array"),
        ("options", None, "tables/text/options: expected an object, found null"),
    ],
)
def test_a_table_of_another_form_is_refused(member: str, value: Any, complaint: str) -> None:
    state = plan(kerasport.read(TABLES), to="torch").apply()
    data = json.loads(manifest.text(state, dict.fromkeys(state, manifest.NO_HASH)))
    data["tables"]["text"][member] = value
    with pytest.raises(MalformedError, match="breaks schemas") as caught:
        manifest.parse(json.dumps(data))
    assert complaint in str(caught.value)


def test_inspect_shows_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", str(TABLES)])
    out = capsys.readouterr().out
    assert 'table: learned: StringLookup  vocabulary of 6: "", "[UNK]", "[UNK]", …' in out
    assert "table: salted: Hashing  hash, salt [13, 37]" in out
    with pytest.raises(SystemExit):
        main(["inspect", "--json", str(TABLES)])
    shown = json.loads(capsys.readouterr().out)
    schema = json.loads((ROOT / "schemas" / "inspect.v1.schema.json").read_text())
    assert not list(Draft202012Validator(schema).iter_errors(shown))
    assert shown["tables"]["bins"]["role"] == "boundaries"


def test_a_model_of_tables_alone_is_converted(tmp_path: Path) -> None:
    inputs = keras.Input((1,), dtype="string")
    words = L.StringLookup(vocabulary=["a"], name="words")
    keras.Model(inputs, words(inputs)).save(tmp_path / "m.keras")
    kerasport.convert(tmp_path / "m.keras", tmp_path / "t.safetensors", to="torch")
    assert kerasport.read(tmp_path / "t.safetensors").tables["words"]["values"] == ["[UNK]", "a"]


# ------------------------------------------------------------------------------- hostile archives


def changed(tmp_path: Path, members: Mapping[str, bytes]) -> Path:
    """The fixture with other or further members."""
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(TABLES) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if info.filename not in members:
                new.writestr(info, old.read(info))
        for name, data in members.items():
            new.writestr(name, data)
    return path


def test_the_fixture_is_still_well_when_rewritten(tmp_path: Path) -> None:
    assert kerasport.read(changed(tmp_path, {})).tables == kerasport.read(TABLES).tables


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, {VOCABULARY: b"good\n\xff\xfe"})
    with pytest.raises(MalformedError) as caught:
        kerasport.read(path)
    assert str(caught.value) == (
        f"changed.keras/{VOCABULARY}: expected text in UTF-8, found another byte at 5"
    )


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    name = "assets/layers/integer_lookup/vocabulary.txt"
    with pytest.raises(MalformedError, match="expected whole numbers, one a line"):
        kerasport.read(changed(tmp_path, {name: b"-1\n7\nseven"}))


@pytest.mark.parametrize("name", ["assets/../../etc/passwd", "/etc/passwd", "assets\\..\\x"])
def test_a_path_that_leaves_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="leaves the archive"):
        kerasport.read(changed(tmp_path, {name: b"x"}))


def test_a_vocabulary_kept_elsewhere_is_not_looked_for(tmp_path: Path) -> None:
    """A path in a configuration is the writer's, and nothing of ours to open."""
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    config = json.loads(zipfile.ZipFile(TABLES).read("config.json"))
    for layer in config["config"]["layers"]:
        if layer["config"].get("name") == "given":
            layer["config"]["vocabulary"] = str(secret)
    path = changed(tmp_path, {"config.json": json.dumps(config).encode()})
    table = kerasport.read(path).tables["given"]
    assert table["values"] is None
    assert table["note"] == "is in another file, which is not part of this one"
    assert "password" not in json.dumps(table)


def test_a_token_with_a_line_break_is_noted(tmp_path: Path) -> None:
    """Keras writes a token a line, so such a token becomes two; the count tells."""
    path = changed(tmp_path, {VOCABULARY: b"\n[UNK]\n[UNK]\nb\na\nnew\nline"})
    table = kerasport.read(path).tables["learned"]
    assert table["note"] == "has 7 lines for 6 tokens: some token has a line break in it"


def test_assets_of_unknown_layers_are_kept_as_text(tmp_path: Path) -> None:
    """Tokenizers keep merges and vocabularies in files of their own."""
    path = changed(
        tmp_path,
        {"assets/tokenizer/merges.txt": "a b\nç d\n".encode(), "assets/x/spm": b"\x00\xff"},
    )
    tables = kerasport.read(path).tables
    assert tables["tokenizer/merges.txt"]["values"] == ["a b\nç d\n"]
    assert tables["tokenizer/merges.txt"]["role"] == "asset"
    assert tables["x/spm"]["values"] is None
    assert tables["x/spm"]["note"] == "has 2 bytes, which are no text; it is left there"


def test_more_text_than_a_manifest_takes_is_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "LONGEST", 1000)
    path = changed(tmp_path, {"assets/tokenizer/merges.txt": b"a b\n" * 1000})
    tables = kerasport.read(path).tables
    assert tables["tokenizer/merges.txt"]["values"] is None
    assert "4,000 bytes, too many for a manifest" in tables["tokenizer/merges.txt"]["note"]
    assert tables["learned"]["values"] is not None


def test_a_folder_that_keras_wrote_without_zipping_has_its_tables_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(TABLES) as archive:
        archive.extractall(tmp_path / "model")
    try:
        tables = kerasport.read(tmp_path / "model").tables
    except kerasport.KerasportError:  # pragma: no cover
        shutil.rmtree(tmp_path / "model")
        raise
    assert tables == kerasport.read(TABLES).tables
