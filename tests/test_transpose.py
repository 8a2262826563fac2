"""Plans: names that a target can hold, losses that are refused, and a ledger that adds up."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kerasport.conventions.torch import RESERVED
from kerasport.errors import UnsupportedError, UsageError
from kerasport.identify import identify
from kerasport.model import Layer, Omission, Snapshot, Source, Tensor
from kerasport.transpose import plan

RNG = np.random.default_rng(7)


def layer(
    path: str,
    class_name: str | None,
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None = None,
) -> Layer:
    weights = {
        key: Tensor.of(f"{path}/{key}", RNG.normal(size=shape).astype(np.float32))
        for key, shape in shapes.items()
    }
    return Layer(path, class_name, config or {}, weights)


def dense(path: str) -> Layer:
    return layer(path, "Dense", {"0": (2, 3), "1": (3,)})


def snapshot(*layers: Layer, omitted: tuple[Omission, ...] = ()) -> Snapshot:
    return identify(Snapshot(Source("model.keras", "keras"), layers, omitted))


def test_a_plan_prints_what_becomes_of_each_tensor() -> None:
    """The design page shows this very picture."""
    conv1 = layer("conv1", "Conv2D", {"0": (2, 7, 3, 5), "1": (5,)})
    assert str(plan(snapshot(conv1), to="torch")) == (
        "conv1.weight  f32[5,3,2,7]  out in kh kw  ←  conv1/kernel  f32[2,7,3,5]  kh kw in out\n"
        "conv1.bias    f32[5]        out           ←  conv1/bias    f32[5]        out"
    )


def test_planning_reads_no_tensor() -> None:
    def refuse() -> Any:
        raise AssertionError("a plan must not read")

    unread = Tensor("d/0", np.dtype(np.float32), (2, 3), refuse)
    steps = plan(snapshot(Layer("d", "Dense", {"use_bias": False}, {"0": unread})), to="torch")
    assert [move.name for move in steps.moves] == ["d.weight"]
    with pytest.raises(AssertionError, match="must not read"):
        steps.apply()["d.weight"].numpy()


def test_an_unknown_convention_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'pytorch': expected one of keras, onnx, torch"):
        plan(snapshot(dense("d")), to="pytorch")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conv1", "conv1"),
        ("encoder/conv1", "encoder.conv1"),
        ("block.conv", "block_conv"),
        ("1st", "_1st"),
        ("lambda", "lambda_"),
        ("forward", "forward_"),
        ("größe", "gr__e"),
        ("a b", "a_b"),
    ],
)
def test_a_name_that_pytorch_cannot_hold_is_mapped(path: str, name: str) -> None:
    steps = plan(snapshot(dense(path)), to="torch")
    assert [move.name for move in steps.moves] == [f"{name}.weight", f"{name}.bias"]
    renamed = [note for note in steps.notes if note.kind == "renamed"]
    assert len(renamed) == (name != path.replace("/", "."))


def test_names_that_would_meet_stay_apart() -> None:
    """The layer whose own name it is keeps it, whatever the order."""
    steps = plan(snapshot(dense("a.b"), dense("a_b"), dense("a b")), to="torch")
    assert [move.name for move in steps.moves][::2] == [
        "a_b_2.weight",
        "a_b.weight",
        "a_b_3.weight",
    ]


PATHS = st.lists(
    st.text(st.sampled_from("ab._ 1/é"), min_size=1, max_size=6).filter(
        lambda path: all(path.split("/"))
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


@given(paths=PATHS)
def test_names_are_mapped_one_to_one_and_pytorch_takes_them(paths: list[str]) -> None:
    layers = [layer(path, "Dense", {"0": (1, 1)}, {"use_bias": False}) for path in paths]
    steps = plan(snapshot(*layers), to="torch")
    names = [move.name for move in steps.moves]
    assert len(set(names)) == len(paths)
    for name in names:
        assert all(word.isidentifier() for word in name.split("."))
        torch.nn.Module().add_module(name.split(".")[0], torch.nn.Linear(1, 1))


def test_every_attribute_of_a_module_is_reserved() -> None:
    """A submodule of such a name raises in PyTorch, or breaks the module."""
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert public <= RESERVED
    with pytest.raises(KeyError):
        torch.nn.Module().add_module("forward", torch.nn.Linear(1, 1))


def test_all_problems_are_told_at_once_sorted() -> None:
    gru = layer(
        "z", "GRU", {"cell/0": (2, 9), "cell/1": (3, 9), "cell/2": (9,)}, {"reset_after": False}
    )
    steps = plan(snapshot(gru, layer("a", "Strange", {"0": (2,)}), dense("d")), to="torch")
    with pytest.raises(UnsupportedError) as caught:
        steps.refuse_losses()
    first, second = caught.value.problems
    assert first.startswith("a: the class Strange is in no table (stored: 0 f32[2])")
    assert second.startswith("z: GRUResetBefore: torch.nn.GRU applies the reset gate after")


def test_without_strict_such_layers_pass_as_stored_and_a_note_says_so() -> None:
    strange = layer("a", "Strange", {"x/0": (2, 3)})
    steps = plan(snapshot(strange), to="torch", strict=False)
    steps.refuse_losses()
    state = steps.apply()
    np.testing.assert_array_equal(state["a.x.0"].numpy(), strange.weights["x/0"].numpy())
    assert [(note.kind, note.loss) for note in steps.notes] == [("kept", True)]


def test_what_is_made_up_is_noted() -> None:
    lstm = layer("l", "LSTM", {"cell/0": (2, 12), "cell/1": (3, 12), "cell/2": (12,)})
    steps = plan(snapshot(lstm), to="torch")
    (note,) = steps.notes
    assert str(note) == "l.bias_hh_l0: filled with 0, which the source does not store"
    assert not steps.apply()["l.bias_hh_l0"].numpy().any()


def test_a_cast_is_noted_and_leaves_whole_numbers_alone() -> None:
    norm = layer("n", "BatchNormalization", {str(number): (3,) for number in range(4)})
    state = plan(snapshot(norm), to="torch").apply(dtype="bf16")
    assert state["n.weight"].spec == "bf16[3]"
    assert state["n.num_batches_tracked"].spec == "i64[]"
    casts = [note["message"] for note in state.manifest["notes"] if note["kind"] == "cast"]
    assert casts == ["cast from f32 to bf16, as asked for"] * 4


def test_two_layers_of_one_name_are_a_problem() -> None:
    steps = plan(snapshot(dense("d"), dense("d")), to="keras")
    assert steps.problems == (
        "d/bias: both d and d have this name",
        "d/kernel: both d and d have this name",
    )


def test_every_source_tensor_is_placed_once_or_listed() -> None:
    seed = Omission(Tensor.of("drop/seed", np.zeros(2, np.int64)), "seed state")
    source = snapshot(dense("a"), dense("b"), omitted=(seed,))
    steps = plan(source, to="torch")
    report = steps.report(steps.apply(), "out")
    assert report.placed == 4
    assert report.omitted == (("drop/seed", "seed state"),)
