"""The command line, as its users meet it: what goes where, and how each refusal ends."""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from kerasport import api, cli, errors
from kerasport.manifest import hasher

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CNN = str(FIXTURES / "cnn.keras")
SEQUENCE = str(FIXTURES / "sequence.keras")
WEIGHTS = str(FIXTURES / "sequence.weights.h5")
OPEN = str(FIXTURES / "sequence.tf_keras.weights_only.h5")  # two kinds fit one of its layers


class Run(NamedTuple):
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Run]


@pytest.fixture
def kerasport(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Run(code, out, err)

    return run


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    given = {
        "env": {**os.environ, "PYTHONPATH": str(ROOT / "convert"), **options.pop("env", {})},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    command = [sys.executable, "-m", "kerasport", *words]
    return subprocess.run(command, check=False, **given)


# ---------------------------------------------------------------------------------- what goes where


@pytest.mark.parametrize("verb", ["convert", "inspect", "plan", "verify", "formats"])
def test_each_verb_prints_data_on_stdout_and_json_if_asked(verb: str, kerasport: Command) -> None:
    words = {
        "convert": [SEQUENCE, "x.parquet", "--to", "torch"],
        "inspect": [SEQUENCE],
        "plan": [CNN, "--to", "keras"],
        "verify": ["x.parquet", "--against", SEQUENCE],
        "formats": [],
    }
    if verb == "verify":
        kerasport("convert", *words["convert"])
    plain, data = kerasport(verb, *words[verb]), kerasport(verb, *words[verb], "--json")
    assert (plain.code, data.code) == (0, 0)
    assert plain.out
    assert plain.err == data.err == ""
    assert isinstance(data.json, dict | list)
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain.out)


def test_notes_of_a_plan_go_to_stderr(kerasport: Command) -> None:
    run = kerasport("plan", SEQUENCE, "--to", "torch")
    assert "note" not in run.out
    assert run.err.startswith("note: synthesised: reader.bias_hh_l0 and 1 more: filled with 0")
    assert kerasport("plan", SEQUENCE, "--to", "torch", "--json").err == ""


def test_a_plan_with_problems_is_printed_and_refused(kerasport: Command) -> None:
    plain = kerasport("plan", OPEN, "--to", "torch")
    assert plain.code == 5
    assert "reader.weight_ih_l0" in plain.out
    assert "norm: the file names no class and 2 kinds fit" in plain.err
    data = kerasport("plan", OPEN, "--to", "torch", "--json")
    assert data.code == 5
    (problem,) = data.json["problems"]
    assert problem.startswith("norm: the file names no class")


def test_inspect_tells_class_role_axes_shape_dtype_and_totals(kerasport: Command) -> None:
    lines = kerasport("inspect", SEQUENCE).out.splitlines()
    assert lines[:3] == [
        "project  TimeDistributed (Dense)  99 parameters  396 B",
        "  kernel  f32[8,11]  in out",
        "  bias    f32[11]    out",
    ]
    assert lines[-1] == "keras: 5 layers, 15 weights, 2,456 parameters, 9.8 kB"
    layers = kerasport("inspect", SEQUENCE, "--json").json["layers"]
    assert [layer["path"] for layer in layers] == ["project", "norm", "reader", "summary", "logits"]
    assert layers[3]["weights"][2] | {"stored": ""} == {
        "role": "bias",
        "name": "summary/bias",
        "axes": ["[input recurrent]", "([z r h] unit)"],
        "shape": [2, 39],
        "dtype": "f32",
        "bytes": 312,
        "trainable": True,
        "stored": "",
    }


def test_inspect_sees_all_eleven_weights_where_others_see_two(
    kerasport: Command, tmp_path: Path
) -> None:
    """The file that KerasFileEditor of Keras 3.15 lists two weights of."""
    import keras

    layers = keras.layers
    rows = keras.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(rows)
    model = keras.Model(rows, layers.Dense(7)(layers.GRU(5)(x)))
    model.save(tmp_path / "model.keras")
    assert kerasport("inspect", "model.keras", "--json").json["totals"]["weights"] == 11


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "onnx", "parquet", "arrow"])
def test_inspect_reads_what_convert_writes(suffix: str, kerasport: Command) -> None:
    kerasport("convert", CNN, f"torch.{suffix}", "--to", "torch")
    kerasport("convert", CNN, f"keras.{suffix}", "--to", "keras")
    told = kerasport("inspect", f"torch.{suffix}").out
    assert (
        "mix  DepthwiseConv2D  162 parameters  648 B\n  weight  f32[18,1,4,2]  (in mult) 1" in told
    )
    of_keras = kerasport("inspect", f"keras.{suffix}", "--json").json
    of_model = kerasport("inspect", CNN, "--json").json
    for listed in (of_keras, of_model):
        for layer in listed["layers"]:
            for weight in layer["weights"]:
                del weight["stored"]
    assert of_keras["layers"] == of_model["layers"]
    assert of_keras["totals"] == of_model["totals"]


def test_a_report_counts_what_it_says_of_many_tensors_alike(kerasport: Command) -> None:
    run = kerasport("convert", CNN, "x.pt", "--to", "torch", "--dtype", "bf16")
    assert "  cast: stem.weight and 13 more: cast from f32 to bf16, as asked for\n" in run.out
    assert "  left out: 26 tensors, optimizer state\n" in run.out
    verified = kerasport("verify", "x.pt", "--against", CNN).out
    assert "proven, after the same cast, bit for bit: 14 source tensors in 15 tensors" in verified


def test_names_that_would_steer_the_terminal_are_shown(kerasport: Command, tmp_path: Path) -> None:
    import keras

    name = "\x1b[2Jconv\x07"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name=name)])
    model.save(tmp_path / "naïve näme.keras")
    run = kerasport("inspect", "naïve näme.keras")
    assert run.out.startswith("\\x1b[2Jconv\\x07  Dense  8 parameters")
    assert kerasport("inspect", "naïve näme.keras", "--json").json["layers"][0]["path"] == name
    assert kerasport("convert", "naïve näme.keras", "ünïcode näme.pt", "--to", "torch").code == 0
    assert (tmp_path / "ünïcode näme.pt").is_file()


def test_a_terminal_that_lacks_letters_is_no_reason_to_fail(tmp_path: Path) -> None:
    bare = {"PYTHONIOENCODING": "ascii"}
    run = process("convert", CNN, "x.pt", "--to", "torch", cwd=tmp_path, env=bare)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(rb"cnn.keras \u2192 x.pt")


# ------------------------------------------------------------------------------------------ options


def test_kinds_settle_what_a_weights_file_leaves_open(kerasport: Command) -> None:
    words = ("convert", OPEN, "x.pt", "--to", "torch")
    assert kerasport(*words).code == 5
    assert kerasport(*words, "--kind", "nor*=LayerNormalization").code == 0


def test_what_was_said_of_kinds_need_not_be_said_again_to_verify(
    kerasport: Command, tmp_path: Path
) -> None:
    words = ("convert", OPEN, "x.safetensors", "--to", "torch")
    assert kerasport(*words, "--kind", "nor*=LayerNormalization").code == 0
    assert kerasport("verify", "x.safetensors", "--against", OPEN).code == 0
    # The twin: one bit of the layer in question is another one.
    whole = bytearray((tmp_path / "x.safetensors").read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    offset = json.loads(whole[8:start])["norm.bias"]["data_offsets"][0]
    whole[start + offset] ^= 1
    (tmp_path / "x.safetensors").write_bytes(whole)
    run = kerasport("verify", "x.safetensors", "--against", OPEN)
    assert run.code == 6
    assert "norm/beta" in run.err


def test_a_config_settles_it_too(kerasport: Command, tmp_path: Path) -> None:
    """A whole model, an archive made of one, or the model's own JSON."""
    kerasport("convert", SEQUENCE, "archive.parquet", "--to", "keras")
    architecture = api.read(SEQUENCE).architecture
    (tmp_path / "model.json").write_text(json.dumps(architecture))
    hashes = set()
    for config in (SEQUENCE, "archive.parquet", "model.json"):
        words = ("convert", WEIGHTS, "x.safetensors", "--to", "torch", "--config", config)
        assert kerasport(*words).code == 0
        hashes.add((tmp_path / "x.safetensors").read_bytes())
    assert len(hashes) == 1


def test_optimizer_state_is_kept_if_asked_for(kerasport: Command) -> None:
    run = kerasport("convert", CNN, "x.parquet", "--to", "keras", "--optimizer", "--json")
    assert (run.json["placed"], run.json["omitted"]) == (40, [])
    assert kerasport("verify", "x.parquet", "--against", CNN, "--optimizer").code == 0
    run = kerasport("convert", CNN, "x.parquet", "--to", "keras", "--json")
    assert (run.json["placed"], len(run.json["omitted"])) == (14, 26)


def test_two_bytes_that_nobody_names_are_what_the_caller_says(
    kerasport: Command, tmp_path: Path
) -> None:
    """Legacy HDF5 keeps bfloat16 as two nameless bytes."""
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        group["dense/kernel:0"] = np.full((3, 2), 0x3F80, "<u2").view("V2")
        group["dense/bias:0"] = np.full(2, 0x4000, "<u2").view("V2")
    refused = kerasport("convert", "old.h5", "x.pt", "--to", "torch")
    assert refused.code != 0
    assert "--assume-dtype" in refused.err
    words = ("convert", "old.h5", "x.pt", "--to", "torch", "--assume-dtype", "bf16")
    assert kerasport(*words).code == 0
    import torch

    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert torch.equal(found["dense.weight"], torch.ones(2, 3, dtype=torch.bfloat16))
    assert torch.equal(found["dense.bias"], 2 * torch.ones(2, dtype=torch.bfloat16))


def test_patterns_select_layers_and_tensors(kerasport: Command) -> None:
    words = ("convert", CNN, "x.pt", "--to", "torch", "--json")
    some = kerasport(*words, "--include", "hidden*", "--include", "*/bias", "--exclude", "mix")
    assert some.json["placed"] == 5
    reasons = [omitted["reason"] for omitted in some.json["omitted"]]
    assert reasons.count("excluded on request") == 9
    assert kerasport("verify", "x.pt", "--against", CNN).code == 0
    assert kerasport("inspect", CNN, "--include", "*/bias", "--json").json["totals"]["weights"] == 5


def test_a_cast_is_a_note_on_each_tensor(kerasport: Command) -> None:
    run = kerasport("convert", CNN, "x.onnx", "--to", "onnx", "--dtype", "f16", "--json")
    casts = [note for note in run.json["notes"] if note["kind"] == "cast"]
    assert len(casts) == run.json["tensors"] == 14
    assert casts[0]["message"] == "cast from f32 to f16, as asked for"


def test_rows_behind_a_flatten_are_left_if_asked_for(kerasport: Command) -> None:
    kept = kerasport("plan", CNN, "--to", "torch", "--flatten", "keep", "--json").json
    turned = kerasport("plan", CNN, "--to", "torch", "--json").json
    assert "reordered" not in {note["kind"] for note in kept["notes"]}
    assert "reordered" in {note["kind"] for note in turned["notes"]}


def test_shards_are_written_and_verified(kerasport: Command, tmp_path: Path) -> None:
    words = ("convert", CNN, "x.safetensors", "--to", "torch", "--max-shard-size", "5kB")
    assert kerasport(*words).code == 0
    assert len(list(tmp_path.glob("x-0000?-of-00004.safetensors"))) == 4
    assert kerasport("verify", "x.safetensors.index.json", "--against", CNN).code == 0


def test_what_the_target_cannot_hold_is_passed_on_if_asked_for(kerasport: Command) -> None:
    run = kerasport("convert", OPEN, "x.pt", "--to", "torch", "--no-strict", "--json")
    assert run.code == 0
    (note,) = [note for note in run.json["notes"] if note["kind"] == "kept"]
    assert (note["subject"], note["loss"]) == ("norm", True)
    assert kerasport("verify", "x.pt", "--against", OPEN).code == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5_000_000_000), ("1.5GiB", 1_610_612_736), ("500 mb", 500_000_000), ("7", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert cli._size(text) == size


# ----------------------------------------------------------------------------------------- refusals


def planted(folder: Path) -> None:
    """Files that somebody might have."""
    (folder / "empty").touch()
    (folder / "text.h5").write_text("hello")
    whole = (FIXTURES / "cnn.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[:5000])
    (folder / "cut.h5").write_bytes((FIXTURES / "cnn.legacy.h5").read_bytes()[:20000])
    (folder / "nothing.json").write_text("{}")
    (folder / "folder.pt").mkdir()
    (folder / "loop.pt").symlink_to("loop.pt")
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = [1, 2, 3]


TORCH = ("--to", "torch")
REFUSALS: list[tuple[Sequence[str], int, str]] = [
    ((), 2, "the following arguments are required: COMMAND"),
    (("frobnicate",), 2, "invalid choice: 'frobnicate'"),
    (("inspect",), 2, "the following arguments are required: FILE"),
    (("inspect", ""), 2, "expected the name of a file, found nothing"),
    (("inspect", "none.h5"), 2, "none.h5: expected a readable file, found: No such file"),
    (
        ("inspect", "~nobody_here/x"),
        2,
        "~nobody_here/x: expected a readable file, found: No such file",
    ),
    (("inspect", "x" * 300), 2, "expected a readable file, found: File name too long"),
    (("inspect", "/dev/null"), 2, "expected a file, found a device or a pipe"),
    (("inspect", "loop.pt"), 2, "expected a readable file, found: Too many levels of symbolic"),
    (("inspect", "empty"), 3, "empty: expected a model, found an empty file"),
    (("inspect", "text.h5"), 3, "found bytes that begin with b'hello'. See: kerasport formats"),
    (("inspect", "other.h5"), 3, "found HDF5 that holds no Keras weights"),
    (("inspect", "folder.pt"), 3, "found a folder"),
    (("inspect", "cut.keras"), 4, "expected a sound zip archive"),
    (("inspect", "cut.h5"), 4, "expected a sound HDF5 file"),
    (("inspect", CNN, "--config", "none.json"), 2, "none.json: expected a readable file"),
    (("inspect", CNN, "--config", "nothing.json"), 4, "expected the configuration of a model"),
    (("inspect", CNN, "--config", WEIGHTS), 2, "expected a model with its architecture, found w"),
    (("inspect", WEIGHTS, "--config", CNN), 2, "the architecture of 'cnn' does not fit"),
    (("inspect", CNN, "--kind", "stem"), 2, "--kind stem: expected PATTERN=KIND, such as 'conv"),
    (("inspect", CNN, "--kind", "stem=Foo"), 2, "--kind stem=Foo: expected the class or kind"),
    (("inspect", CNN, "--kind", "no=Dense"), 2, "--kind no=Dense: no layer has such a path"),
    (("inspect", CNN, "--include", "no*"), 2, "no layer or tensor fits 'no*'"),
    (("inspect", CNN, "--exclude", "*"), 2, "nothing is left of cnn.keras"),
    (("inspect", CNN, "--assume-dtype", "f33"), 2, "dtype 'f33': expected one of bf16"),
    (("convert", CNN, "x.pt"), 2, "the following arguments are required: --to"),
    (("convert", CNN, "x.pt", "--to", "jax"), 2, "unknown convention 'jax': expected one of keras"),
    (("convert", CNN, "x.h5", *TORCH), 3, "no format is written under the suffix '.h5': expected"),
    (("convert", CNN, "x", *TORCH), 3, "no format is written under a name without a suffix"),
    (("convert", CNN, "x", "--format", "foo", *TORCH), 3, "unknown format 'foo': expected one of"),
    (
        ("convert", CNN, "x", "--format", "keras", *TORCH),
        3,
        "format keras can be read, not written",
    ),
    (("convert", CNN, "x.pt", "--dtype", "f33", *TORCH), 2, "dtype 'f33': expected one of bf16"),
    (("convert", CNN, "x.pt", "--dtype", "i8", *TORCH), 2, "dtype 'i8': expected one of bf16"),
    (("convert", CNN, "x.pt", "--flatten", "no", *TORCH), 2, "invalid choice: 'no'"),
    (("convert", CNN, "x.safetensors", "--max-shard-size", "1XB", *TORCH), 2, "a size such as 5GB"),
    (("convert", CNN, "x.pt", "--max-shard-size", "1MB", *TORCH), 2, "Only safetensors is written"),
    (("convert", CNN, "none/x.pt", *TORCH), 2, "expected a folder none, found none"),
    (("convert", CNN, "folder.pt", *TORCH), 2, "expected the name of a file, found a folder"),
    (("convert", CNN, "empty/x.pt", *TORCH), 2, "expected a folder empty, found none"),
    (("convert", CNN, f"{'x' * 300}.pt", *TORCH), 2, "File name too long"),
    (("convert", CNN, "/dev/null", "--format", "pytorch", *TORCH), 2, "found a device"),
    (("convert", OPEN, "x.pt", *TORCH), 5, "say which with --kind 'norm=LayerNormalization'"),
    (("plan", CNN), 2, "the following arguments are required: --to"),
    (("plan", "cut.h5", *TORCH), 4, "expected a sound HDF5 file"),
    (("verify", "x.pt"), 2, "expected --against SRC, the model that it came from; or --run"),
    (("verify", "x.pt", "--against", CNN), 2, "x.pt: expected a readable file"),
    (("verify", CNN, "--against", CNN), 2, "expected a file that kerasport wrote, found Keras 3"),
]


@pytest.mark.parametrize(
    ("words", "code", "message"), REFUSALS, ids=[" ".join(w)[-60:] for w, *_ in REFUSALS]
)
def test_a_refusal_is_one_message_and_its_exit_code(
    words: Sequence[str], code: int, message: str, kerasport: Command, tmp_path: Path
) -> None:
    planted(tmp_path)
    before = sorted(tmp_path.iterdir())
    run = kerasport(*words)
    assert run.code == code
    assert message in run.err
    assert run.out == ""
    assert "Traceback" not in run.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_cast_that_overflows_is_refused(kerasport: Command, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    model.layers[0].set_weights([np.full((3, 2), 1e5), np.zeros(2)])
    model.save(tmp_path / "big.keras")
    words = ("convert", "big.keras", "x.pt", *TORCH, "--dtype")
    run = kerasport(*words, "f16")
    assert (run.code, run.out) == (5, "")
    assert "d.weight: 100000.0 is too large for f16; cast to a dtype of greater range" in run.err
    assert not (tmp_path / "x.pt").exists()
    assert kerasport(*words, "bf16").code == 0


def test_state_dicts_of_another_layout_lead_back_to_their_source(kerasport: Command) -> None:
    kerasport("convert", CNN, "x.safetensors", "--to", "torch")
    for to in ("keras", "torch", "onnx"):
        run = kerasport("convert", "x.safetensors", "y.safetensors", "--to", to)
        assert run.code == 5
        assert "x.safetensors is in torch layout, and conversions start from Keras" in run.err


def test_a_missing_extra_is_named_with_the_line_that_installs_it(tmp_path: Path) -> None:
    blocked = tmp_path / "pyarrow"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('blocked')")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "convert")])
    target = tmp_path / "x.parquet"
    run = process("convert", CNN, str(target), *TORCH, env={"PYTHONPATH": path})
    assert run.returncode == 7
    assert b"pip install 'kerasport[arrow]'" in run.stderr
    assert not target.exists()


def test_a_full_disk_is_no_bug(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk; the old file stays."""
    (tmp_path / "x.safetensors").write_bytes(b"old")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = ("convert", CNN, "x.safetensors", *TORCH)
    run = process(*words, cwd=tmp_path, preexec_fn=limited)
    assert (run.returncode, run.stdout) == (2, b"")
    assert b"x.safetensors: expected a place that can be written, found: File too lar" in run.stderr
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.safetensors", b"old")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder to forbid writing")
def test_a_folder_that_takes_no_files_is_no_bug(kerasport: Command) -> None:
    run = kerasport("convert", CNN, "/proc/x.safetensors", *TORCH)
    assert (run.code, run.out) == (2, "")
    assert "/proc/x.safetensors: expected a place that can be written" in run.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_output_that_cannot_be_written_is_no_bug() -> None:
    with Path("/dev/full").open("w") as full:
        run = process("inspect", CNN, "--json", stdout=full)
    assert (run.returncode, run.stderr) == (2, b"kerasport: No space left on device\n")


def test_a_reader_that_leaves_early_is_no_bug() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        run = process("inspect", CNN, stdout=writing)
    finally:
        os.close(writing)
    assert (run.returncode, run.stderr) == (0, b"")


def test_a_bug_shows_its_traceback_and_asks_for_a_report(
    kerasport: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(api, "read", broken)
    run = kerasport("inspect", CNN)
    assert (run.code, run.out) == (1, "")
    assert "Traceback" in run.err
    assert run.err.splitlines()[-1].startswith("kerasport: this is a bug. Please report it")


def test_an_interrupted_command_says_so(
    kerasport: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "read", interrupted)
    run = kerasport("inspect", CNN)
    assert (run.code, run.err) == (130, "kerasport: interrupted; the target is as it was\n")


# ----------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_wiped_at_the_end(
    kerasport: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LONG", 1)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    kerasport("convert", CNN, "x.safetensors", *TORCH)
    shown = terminal.getvalue().split("\r")
    assert shown[1] == "8 B of 11.9 kB, 0 %"
    assert shown[-3:-1] == ["11.9 kB of 11.9 kB, 100 %", " " * len("11.9 kB of 11.9 kB, 100 %")]
    assert shown[-1] == ""


def test_progress_is_shown_neither_for_short_work_nor_in_a_file(
    kerasport: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    kerasport("convert", CNN, "x.safetensors", *TORCH)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(cli, "LONG", 1)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    kerasport("convert", CNN, "x.safetensors", *TORCH)
    assert file.getvalue() == ""


# ------------------------------------------------------------------------------------ documentation


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                yield from parsers(choice)


def test_every_command_and_option_has_help() -> None:
    found = list(parsers(cli._parser([*cli.VERBS])))
    assert len(found) == 7
    for parser in found:
        assert parser.description
        assert [
            action.dest for action in parser._actions if not (action.help or action.choices)
        ] == []


@pytest.mark.parametrize("verb", cli.VERBS)
def test_only_the_command_that_is_asked_for_is_given_its_arguments(verb: str) -> None:
    """The arguments of all would take as long as listing a model."""
    for parser in parsers(cli._parser(["no", verb, "word"])):
        asked = parser.prog == f"kerasport {verb}"
        assert any(action.dest == "json" for action in parser._actions) == asked


def test_the_exit_codes_of_the_help_are_those_of_the_errors() -> None:
    def codes(kind: type[errors.KerasportError]) -> Iterator[int]:
        yield kind.exit_code
        for below in kind.__subclasses__():
            yield from codes(below)

    told = {int(line.split()[0]) for line in cli.EXIT_CODES.splitlines()[1:]}
    assert told == {0, *codes(errors.KerasportError)}


def test_help_and_version_go_to_stdout(kerasport: Command) -> None:
    for words in (["--help"], ["--version"], ["convert", "--help"]):
        run = kerasport(*words)
        assert (run.code, run.err) == (0, "")
        assert run.out


def test_the_hash_in_the_manifest_is_that_of_the_source(kerasport: Command, tmp_path: Path) -> None:
    kerasport("convert", CNN, "x.pt", *TORCH)
    digest = hasher()
    digest.update(Path(CNN).read_bytes())
    source = json.loads((tmp_path / "x.pt.json").read_text())["source"]
    assert source["hash"] == digest.hexdigest()
    assert (source["file"], source["bytes"]) == ("cnn.keras", Path(CNN).stat().st_size)


@pytest.mark.parametrize(("call", "frozen"), [("cli.main(['--version'])", True), ("0", False)])
def test_at_its_end_a_command_looks_for_no_garbage(call: str, frozen: bool) -> None:
    """The twin is a process that runs no command."""
    script = (
        "import atexit, gc; from kerasport import cli\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        f"{call}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT / "convert")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == str(frozen)
