import pytest

from images.store import reference
from vmctl.errors import SpecError


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("web", "docker.io/library/web:latest", "web"),
        ("web:latest", "docker.io/library/web:latest", "web"),
        ("web:1.2", "docker.io/library/web:1.2", "web:1.2"),
        ("docker.io/web", "docker.io/library/web:latest", "web"),
        ("docker.io/library/web:1", "docker.io/library/web:1", "web:1"),
        ("index.docker.io/library/web", "docker.io/library/web:latest", "web"),
        ("me/web", "docker.io/me/web:latest", "me/web"),
        ("localhost/web", "localhost/web:latest", "localhost/web"),
        ("localhost:5000/a/b/web:1", "localhost:5000/a/b/web:1", "localhost:5000/a/b/web:1"),
        ("quay.io/me/web:latest", "quay.io/me/web:latest", "quay.io/me/web"),
        ("[::1]:5000/web", "[::1]:5000/web:latest", "[::1]:5000/web"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e"),
    ],
)
def test_names_are_dockers(text, full, short):
    assert reference.parse(text).full == full
    assert reference.familiar(text) == short
    assert reference.familiar(full) == short


def test_a_digest_names_an_image_without_a_tag():
    digest = "sha256:" + "ab" * 32
    assert reference.parse(f"web@{digest}").full == f"docker.io/library/web@{digest}"
    assert reference.parse(f"web:1@{digest}").familiar == f"web@{digest}"
    pinned = reference.parse("web:1").at(digest)
    assert (pinned.full, pinned.there) == (f"docker.io/library/web@{digest}", "web:1")


WRONG = ["", "Web", "web:", "web:-1", "web@sha256:12", "web@", "/web", "web/", "a//b", "../web", "we b", "web:1:2"]
WRONG += ["-web", "https://x.io/web", "a.io/", ".a.io/web", "x" * 300, "web\n", "web:" + "1" * 129, "we\0b"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(SpecError, match="is not the name of an image"):
        reference.parse(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/tmp/web.tar.gz", "web"),
        ("debian-12-genericcloud.qcow2", "debian-12-genericcloud"),
        ("My Disk (1).img.xz", "my-disk-1"),
        ("rootfs.tar.zst", "rootfs"),
        ("/srv/layout/", "layout"),
        (".tar", "tar"),
        ("ÄÖ", "image"),
        ("a..b__c.oci", "a-b-c"),
    ],
)
def test_a_files_name_gives_a_name(path, name):
    assert reference.from_file(path) == name
    assert reference.familiar(name) == name


@pytest.mark.parametrize(
    ("ref_name", "name"),
    [
        ("", "web"),
        ("latest", "web"),
        ("1.2", "web:1.2"),
        ("other:1.2", "other:1.2"),
        ("docker.io/library/other:latest", "other"),
        ("not a name:", "web"),
    ],
)
def test_a_word_in_a_layout_is_the_tag_of_what_the_file_is_called(ref_name, name):
    assert reference.in_layout(ref_name, "/tmp/web.tar") == name
