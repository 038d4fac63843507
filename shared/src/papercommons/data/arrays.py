"""NumPy archives of a user's, read without pickle and not beyond a size."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from papercommons.errors import DataError, reason

if TYPE_CHECKING:
    import numpy as np


def read_npz(path: str | Path, *, max_bytes: int = 8 << 30) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name.

    Args:
        path: the file.
        max_bytes: refuse a file whose arrays unpack to more.

    Raises:
        DataError: missing, broken, pickled or too large.
    """
    import numpy as np

    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; expected an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise DataError(f"{path}: unpacks to {unpacked:,} bytes, above {max_bytes:,}; split it")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable .npz ({reason(error)})") from None
