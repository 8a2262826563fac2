"""The `.keras` archive: a zip file with the configuration and, as one member, the weights.

Keras stores members as they are, so the HDF5 file inside is mapped where it lies. An archive that
somebody packed again with compression is unpacked to a temporary file first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport.errors import KerasportError, UnknownFormatError
from kerasport.model import Snapshot
from kerasport.readers import keras_model
from kerasport.readers.mapped import mapped
from kerasport.readers.zipped import Archive, names

__all__ = ["matches", "read"]

CONFIG: Final = keras_model.CONFIG
METADATA: Final = keras_model.METADATA


def matches(path: Path) -> bool:
    """Whether a file is a zip archive that holds a configuration of Keras.

    An archive that was cut off counts too if it begins as Keras begins one, so that the reader can
    say what is wrong with it.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
    except KerasportError:
        return False
    if region.read(0, 4) != b"PK\x03\x04":
        return False
    found = names(region)
    if found is None:
        return region.read(30, 13).rstrip(b"{") in (METADATA.encode(), CONFIG.encode())
    return CONFIG in found and (
        METADATA in found or any(n.startswith("model.weights") for n in found)
    )


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a `.keras` archive.

    Args:
        path: the file.
        architecture: a configuration to use instead of the archive's own.
        assume_dtype: what values are that the file knows only as so many bytes.

    Raises:
        UsageError: there is no such file, or the given architecture does not fit it.
        UnknownFormatError: it is no archive of Keras.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    region = mapped(path)
    archive = Archive(region, path.name)
    if CONFIG not in archive.members:
        raise UnknownFormatError(f"{path}: expected an archive of Keras, found no {CONFIG} in it")
    return keras_model.snapshot(
        keras_model.Parts(
            path.name, "keras", tuple(archive.members), archive.small, archive.region
        ),
        architecture=architecture,
        assume_dtype=assume_dtype,
        nbytes=region.size,
        content=region.content,
    )
