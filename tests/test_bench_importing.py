import os
import tempfile

from bench import importing


def test_an_import_is_measured_beside_tar_and_mkfs_erofs(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = []
    done = importing.measure(1, 1, told.append, image_bytes=8_000_000)
    assert [len(done.of(kind)) for kind in ("by hand", "import", "import again")] == [1, 1, 1]
    assert done.unpacked_bytes >= 8_000_000 > done.packed_bytes > 100_000
    assert [row[0] for row in importing.rows(done)] == ["by hand", "import", "import again"]
    assert all(len(row) == len(importing.COLUMNS) for row in importing.rows(done))
    assert importing.document(done)["ratio"] == done.ratio() > 0
    assert f"an image of {done.files} files" in importing.notes(done)[0]
    assert "round 1 of 1: import" in told
    assert os.listdir(tmp_path) == []
