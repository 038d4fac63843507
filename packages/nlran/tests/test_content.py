import pytest
from nlran.content import find_copies, fingerprint, scan_files
from nlran.scans import find_scans


def write_header(path, data, text="DimSize = 4 4 4\nElementDataFile = {}\n"):
    """A header with its voxels in another file; nothing here decodes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(data))
    return path


@pytest.mark.parametrize("name", ["a.mhd", "a.nrrd", "a.mha"])
def test_voxels_in_a_file_of_any_name_belong_to_the_scan(tmp_path, name):
    text = "NRRD0004\nData File: {}\n\n" if name == "a.nrrd" else "ElementDataFile = {}\n"
    header = write_header(tmp_path / name, "voxels.bin", text)
    (tmp_path / "voxels.bin").write_bytes(b"1234")
    assert scan_files(header) == [header, tmp_path / "voxels.bin"]
    before = fingerprint(scan_files(header))
    (tmp_path / "voxels.bin").write_bytes(b"12345")
    assert fingerprint(scan_files(header)) != before
    write_header(header, "LOCAL" if name != "a.nrrd" else "absent", text)
    assert scan_files(header) == [header]
    (tmp_path.parent / "outside.bin").write_bytes(b"x")
    for name in ("../outside.bin", "x" * 5000, "a\0b"):
        write_header(header, name, text)
        assert scan_files(header) == [header]


def test_voxels_of_a_header_are_not_left_over_files(tmp_path):
    for place, name in enumerate(("CP", "NCP")):
        write_header(tmp_path / name / "a.mhd", "voxels.bin")
        (tmp_path / name / "voxels.bin").write_bytes(bytes([place]))
    scans = find_scans(tmp_path)
    assert len(scans) == 2
    assert not any("left out" in note for note in scans.notes)


def test_copies_are_found_under_other_names_and_in_another_order(tmp_path, write_slices):
    for folder, numbers in (("a", (1, 2, 3)), ("b", (3, 1, 2)), ("c", (1, 2, 4))):
        write_slices(tmp_path / folder, numbers)
    for number, other in zip((1, 2, 3), (9, 7, 8), strict=True):
        (tmp_path / "b" / f"{number:04d}.png").rename(tmp_path / "b" / f"{other:04d}.png")
    assert find_copies([tmp_path / name for name in "abc"]) == [[0, 1]]


def test_copies_of_headers_are_told_by_their_voxels(tmp_path):
    headers = [
        write_header(
            tmp_path / f"{name}.mhd", f"{name}.raw", f"Offset = {name}\nElementDataFile = {{}}\n"
        )
        for name in ("a", "b", "c")
    ]
    for name, voxels in zip("abc", (b"12", b"12", b"34"), strict=True):
        (tmp_path / f"{name}.raw").write_bytes(voxels)
    assert find_copies(headers) == [[0, 1]]


def test_files_that_a_desktop_leaves_do_not_count(tmp_path, write_slices):
    write_slices(tmp_path / "a")
    write_slices(tmp_path / "b")
    before = fingerprint(scan_files(tmp_path / "a"))
    for name in (".DS_Store", "Thumbs.db", "._0001.png", "desktop.ini"):
        (tmp_path / "a" / name).write_text("x")
    assert fingerprint(scan_files(tmp_path / "a")) == before
    assert find_copies([tmp_path / "a", tmp_path / "b"]) == [[0, 1]]


def test_the_hash_of_a_set_follows_the_content(tmp_path, write_scan):
    for value, name in enumerate(("CP", "NCP")):
        write_scan(tmp_path / name / "a.npy", value)
    before = find_scans(tmp_path).hash()
    write_scan(tmp_path / "CP" / "a.npy", 5)
    changed = find_scans(tmp_path).hash()
    assert changed != before
    write_scan(tmp_path / "CP" / "a.npy", 0)
    assert find_scans(tmp_path).hash() == before
