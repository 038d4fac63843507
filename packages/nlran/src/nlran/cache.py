"""Prepared scans, read and resampled once: kept as .npy files in a folder, or in memory."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from papercommons.errors import DataError, reason
from papercommons.files import atomic_path

from nlran.content import fingerprint, scan_files
from nlran.masks import find_mask
from nlran.preparation import Preparation, prepare, read_mask
from nlran.scans import Scan, ScanSet, read_scan
from nlran.volumes import Units, Volume

IN_MEMORY_BYTES = 2 << 30
_UNITS: tuple[Units, ...] = ("HU", "uint8")
log = logging.getLogger("papercommons")
_VERSION = 1  # of the files; raise it whenever reading or preparing gives other numbers


class PreparedScans:
    """The scans of a set on the network's grid, in their own units.

    A file in the folder counts as long as the scan's files, its mask and the preparation are the
    same. Without a folder, volumes are kept in memory up to a limit and read again beyond it; each
    reading process keeps its own, up to the same limit.

    Args:
        scans: the set.
        preparation: of each scan; its units are those of the scan.
        folder: for the .npy files; None: in memory.
        allow_gaps: see `read_volume`.
        memory: limit in bytes where there is no folder, for each process.
    """

    def __init__(
        self,
        scans: ScanSet,
        preparation: Preparation,
        *,
        folder: str | Path | None = None,
        allow_gaps: bool = False,
        memory: int = IN_MEMORY_BYTES,
    ) -> None:
        self.scans, self.preparation, self.allow_gaps = scans, preparation, allow_gaps
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[Scan, tuple[np.ndarray, Units]] = {}
        self._keys: dict[Scan, str] = {}
        self._masked: dict[Path, Scan] = {}
        self._room = memory

    def load(self, scan: Scan) -> tuple[np.ndarray, Units]:
        """Return a scan's volume, float16, shape (d, h, w), read-only, and its units.

        Args:
            scan: one of the set.

        Raises:
            DataError: it cannot be read, or the folder not be written to.
        """
        if self.folder is not None:
            return self._from_folder(scan, self.folder)
        if scan not in self._kept:
            prepared, units = self._prepare(scan)
            if prepared.nbytes > self._room:
                return prepared, units
            self._room -= prepared.nbytes
            self._kept[scan] = prepared, units
        return self._kept[scan]

    def _from_folder(self, scan: Scan, folder: Path) -> tuple[np.ndarray, Units]:
        if scan not in self._keys:
            self._keys[scan] = self._key(scan)
        key = self._keys[scan]
        for units in _UNITS:
            kept = self._kept_file(folder / f"{key}-{units}.npy")
            if kept is not None:
                return kept, units
        prepared, units = self._prepare(scan)
        try:
            with atomic_path(folder / f"{key}-{units}.npy") as temporary:
                np.save(temporary, prepared, allow_pickle=False)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot keep prepared scans ({reason(error)}); free some space or give "
                "another --cache"
            ) from None
        return prepared, units

    def _kept_file(self, path: Path) -> np.ndarray | None:
        """Return a prepared scan, or None if it is not there or damaged."""
        try:
            array = np.load(path, "r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if not isinstance(array, np.ndarray) or array.dtype != np.float16 or array.ndim != 3:
            return None
        depth, height, width = self.preparation.size
        return array if array.shape == (depth or len(array), height, width) else None

    def _prepare(self, scan: Scan) -> tuple[np.ndarray, Units]:
        try:
            volume = read_scan(self.scans, scan, allow_gaps=self.allow_gaps)
            preparation = replace(self.preparation, units=volume.units)
            prepared, _ = prepare(volume, preparation, self._mask(scan, volume))
        except DataError as error:
            where = "" if scan.path in str(error) else f"{self.scans.root / scan.path}: "
            raise DataError(f"{where}{error}; --skip-bad leaves it out") from None
        for note in volume.notes:
            log.warning("%s: %s", scan.path, note)
        prepared.flags.writeable = False
        return prepared, volume.units

    def _mask(self, scan: Scan, volume: Volume) -> np.ndarray | None:
        path = self._mask_path(scan)
        return None if path is None else read_mask(path, volume)

    def _mask_path(self, scan: Scan) -> Path | None:
        if self.preparation.lung_mask in ("none", "auto"):
            return None
        folder = self.preparation.lung_mask
        mask = find_mask(folder, scan.path)
        if mask is None:
            raise DataError(f"{folder}: no mask for {scan.path}; expected its relative name")
        if (other := self._masked.setdefault(mask, scan)) != scan:
            raise DataError(f"{mask}: of {other.path}, or of {scan.path}? give each its own mask")
        return mask

    def _key(self, scan: Scan) -> str:
        files = self.scans.files(scan)
        mask = self._mask_path(scan)
        parts = (
            _VERSION,
            fingerprint(files),
            scan.path if self.scans.arrays else scan.slices,
            fingerprint(scan_files(mask)) if mask else "",
            self.allow_gaps,
            sorted(asdict(replace(self.preparation, units="HU")).items()),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
