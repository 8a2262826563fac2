"""Checkpoints of format V1, in one file or in several, are read as TensorFlow reads them."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
import tf_tables
from kerasport.errors import MalformedError, UsageError
from kerasport.readers.tf_bundle_v1 import bundle_v1, files_v1
from tf_tables import numbers

# What TensorFlow 2.21 writes in this format; bfloat16, uint32 and the like it refuses.
DTYPES = (
    *("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16"),
    *("bool", "complex64", "complex128"),
)


def save(path: Path, tensors: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> Path:
    """A file of format V1; a name may end in `#1`, `#2`, … for slices of one tensor."""
    import tensorflow as tf

    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=[name.partition("#")[0] for name in tensors],
        shapes_and_slices=[(slices or {}).get(name, "") for name in tensors],
        data=[tf.constant(values) for values in tensors.values()],
    )
    return path


def assert_as_tensorflow_reads(path: Path) -> None:
    """Every name and every value equals what TensorFlow's own reader gives."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(path))
    found = bundle_v1(files_v1(path)).entries
    shapes = reader.get_variable_to_shape_map()
    assert set(found) == set(shapes) != set()
    for name, entry in found.items():
        expected = tf.raw_ops.RestoreSlice(
            file_pattern=str(path),
            tensor_name=name,
            shape_and_slice="",
            dt=reader.get_variable_to_dtype_map()[name],
        ).numpy()
        assert (entry.shape, entry.dtype) == (tuple(shapes[name]), expected.dtype), name
        assert entry.load().dtype == expected.dtype
        np.testing.assert_array_equal(entry.load(), expected, err_msg=name)


def parted(folder: Path) -> Path:
    """A checkpoint of two files, as two machines wrote them: one variable lies in both."""
    whole = numbers((7, 5))
    for number, rows in enumerate((slice(0, 4), slice(4, 7))):
        cut = f"{rows.start},{rows.stop - rows.start}"
        save(
            folder / f"model.ckpt-3-{number:05d}-of-00002",
            {"table": whole[rows], f"dense_{number}/kernel": numbers((2, 3), seed=number)},
            {"table": f"7 5 {cut}:-"},
        )
    return folder / "model.ckpt-3"


def test_all_dtypes_are_read_as_tensorflow_reads_them(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {f"of/{dtype}": numbers((3, 5), dtype) for dtype in DTYPES})
    assert_as_tensorflow_reads(path)


def test_scalars_empty_large_and_negative_ones_are_read(tmp_path: Path) -> None:
    tensors = {
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "none/of/many": np.zeros((2, 0, 7), np.int64),
        "alike": np.full((300, 700), 0.25, np.float32),
        "negative": np.array([-1, -(2**63), 2**63 - 1]),
        "bytes": np.arange(256, dtype=np.uint8),
        "signed": np.arange(-128, 128, dtype=np.int8),
    }
    assert_as_tensorflow_reads(save(tmp_path / "c", tensors))


def test_texts_are_listed_and_are_no_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"words": np.array([b"a", b""], object), "w": numbers((2, 3))})
    snapshot = kerasport.read(path)
    assert [(o.tensor.name, o.reason) for o in snapshot.omitted] == [("words", "text, not numbers")]


def test_partitioned_variables_are_put_together(tmp_path: Path) -> None:
    whole = numbers((5, 11))
    tensors = {f"wide#{n}": whole[:, start : start + 4] for n, start in enumerate((0, 4, 8))}
    slices = {
        f"wide#{n}": f"5 11 -:{start},{min(4, 11 - start)}" for n, start in enumerate((0, 4, 8))
    }
    path = save(tmp_path / "c", tensors, slices)
    assert_as_tensorflow_reads(path)
    np.testing.assert_array_equal(bundle_v1(files_v1(path)).entries["wide"].load(), whole)


@pytest.mark.parametrize("name", ["", "-?????-of-00002", "-00000-of-00002", "-00001-of-00002"])
def test_several_files_are_one_checkpoint_by_each_of_their_names(name: str, tmp_path: Path) -> None:
    prefix = parted(tmp_path)
    assert_as_tensorflow_reads(prefix.with_name(f"{prefix.name}-?????-of-00002"))
    snapshot = kerasport.read(prefix.with_name(prefix.name + name))
    assert [layer.path for layer in snapshot.layers] == ["dense_0", "dense_1", "model"]
    np.testing.assert_array_equal(snapshot["model"].weights["table"].numpy(), numbers((7, 5)))


def test_a_folder_leads_to_what_its_state_file_names(tmp_path: Path) -> None:
    """TensorFlow names a checkpoint of several files by a pattern."""
    import tensorflow as tf

    prefix = parted(tmp_path)
    save(tmp_path / "other", {"w": numbers((2, 3))})
    v1 = tf.compat.v1
    v1.train.update_checkpoint_state(str(tmp_path), f"{prefix}-?????-of-00002")
    assert tf.train.latest_checkpoint(str(tmp_path)) == f"{prefix}-?????-of-00002"
    assert "dense_1" in kerasport.read(tmp_path)


def test_a_session_s_checkpoint_is_read_with_its_graph(tmp_path: Path) -> None:
    """The operations in the file beside it say what the variables are."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (1, 8, 8, 2))
        kernel = v1.get_variable("conv/w", shape=(3, 5, 2, 7), use_resource=False)
        tf.nn.conv2d(image, kernel, 1, "SAME")
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver(write_version=v1.train.SaverDef.V1).save(
            session, str(tmp_path / "m"), global_step=7
        )
        expected = session.run(kernel)
    layer = kerasport.read(path)["conv"]
    assert layer.kind == "Conv2D"
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), expected)


def test_names_of_two_checkpoints_are_asked_about(tmp_path: Path) -> None:
    prefix = parted(tmp_path)
    save(tmp_path / f"{prefix.name}-00000-of-00001", {"w": numbers((2, 3))})
    with pytest.raises(UsageError, match=r"several checkpoints .*-of-00001, .*-of-00002"):
        files_v1(prefix)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    prefix = parted(tmp_path)
    (tmp_path / f"{prefix.name}-00001-of-00002").unlink()
    with pytest.raises(UsageError, match=r"expected 2 files, and .*-00001-of-00002 is not there"):
        kerasport.read(prefix)


def test_files_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    for number, shape in enumerate(((7, 5), (7, 6))):
        save(tmp_path / f"c-{number:05d}-of-00002", {"table": numbers(shape)})
    with pytest.raises(MalformedError, match=r"table: is float32\[7, 6\] in one file and float32"):
        kerasport.read(tmp_path / "c")


def test_a_slice_that_two_files_have_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"c-{number:05d}-of-00002", {"table": numbers((7, 5))})
    with pytest.raises(MalformedError, match=r"table: its slices do not make up \[7, 5\]"):
        kerasport.read(tmp_path / "c")


# ---- hostile files


def rewritten(path: Path, change: Callable[[Any, list[Any]], None]) -> Path:
    """The file with its messages changed, through TensorFlow's own, and sealed again."""
    from tensorflow.core.util import saved_tensor_slice_pb2

    read = saved_tensor_slice_pb2.SavedTensorSlices.FromString
    pairs = [(key, read(value)) for key, value in tf_tables.pairs(path)]
    change(pairs[0][1], [message for _, message in pairs[1:]])
    path.write_bytes(tf_tables.table([(key, m.SerializeToString()) for key, m in pairs]))
    return path


def _shape(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].shape.dim[0].size = 1 << 40


def _negative(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].shape.dim[0].size = -3


def _dtype(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].type = 2


def _unknown(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].type = 99


def _beyond(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].slice[0].extent[0].start = 1
    meta.meta.tensor[0].slice[0].extent[0].length = 3


def _elsewhere(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].name = "other"


def _twice(meta: Any, _: Any) -> None:
    meta.meta.tensor[0].slice.append(meta.meta.tensor[0].slice[0])


def _more(_: Any, data: list[Any]) -> None:
    data[0].data.data.float_val.extend([1.0] * 100)


def _torn(_: Any, data: list[Any]) -> None:
    data[0].data.data.tensor_content = b"abc"


def _no_meta(meta: Any, _: Any) -> None:
    del meta.meta.tensor[:]
    meta.meta.tensor.add().name = "w"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shape, "do not make up|announces"),
        (_negative, "expected a known shape"),
        (_dtype, "bytes are no|values for|bytes cannot be|holds"),
        (_unknown, "expected a dtype of TensorFlow, found number 99"),
        (_beyond, r"a slice from 1 to 4 of 3"),
        (_elsewhere, "does not hold it"),
        (_twice, "do not make up"),
        (_more, "106 values for"),
        (_torn, "3 bytes cannot be"),
        (_no_meta, "expected a dtype of TensorFlow, found number 0"),
    ],
)
def test_a_file_that_lies_is_refused(
    change: Callable[[Any, list[Any]], None], message: str, tmp_path: Path
) -> None:
    path = rewritten(save(tmp_path / "c", {"w": numbers((3, 2))}), change)
    with pytest.raises(MalformedError, match=message):
        bundle_v1((path,))


def test_the_file_to_be_broken_is_whole_where_nothing_is_changed(tmp_path: Path) -> None:
    path = rewritten(save(tmp_path / "c", {"w": numbers((3, 2))}), lambda meta, data: None)
    assert_as_tensorflow_reads(path)


def test_a_truncated_file_or_a_changed_byte_is_no_other_value(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"w": numbers((3, 2))})
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises((MalformedError, UsageError)):
            bundle_v1((path,))
    for place in range(len(whole) - 48):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(kerasport.KerasportError):
            found = bundle_v1((path,)).entries["w"].load()
            np.testing.assert_array_equal(found, numbers((3, 2)))
