import hashlib
import json
import tarfile
from pathlib import Path

from dev.cluster.images import SmallImage, parse_image_list, untagged, write_archive


def image(folder: Path, **changes: object) -> SmallImage:
    binary = folder / "program"
    binary.write_bytes(b"static")
    values = {"reference": "localhost/program:1", "binary": binary, "path": "bin/program", "links": ["bin/sh"]}
    return SmallImage(**{**values, **changes})  # type: ignore[arg-type]


def contents(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]


def test_archive_leads_from_its_name_to_the_binary(tmp_path: Path) -> None:
    write_archive([image(tmp_path)], tmp_path / "x.tar")
    files = contents(tmp_path / "x.tar")
    [manifest] = json.loads(files["index.json"])["manifests"]
    assert manifest["annotations"] == {"io.containerd.image.name": "localhost/program:1"}
    found = json.loads(files[f"blobs/sha256/{manifest['digest'].removeprefix('sha256:')}"])
    config = json.loads(files[f"blobs/sha256/{found['config']['digest'].removeprefix('sha256:')}"])
    assert config["config"] == {"Entrypoint": ["/bin/program"], "User": "65535:65535", "Env": []}
    [layer] = found["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    (tmp_path / "layer.tar").write_bytes(files[f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}"])
    with tarfile.open(tmp_path / "layer.tar") as archive:
        assert [(entry.name, entry.linkname, oct(entry.mode)) for entry in archive] == [
            ("bin", "", "0o755"),
            ("bin/program", "", "0o755"),
            ("bin/sh", "/bin/program", "0o777"),
        ]
        extracted = archive.extractfile("bin/program")
        assert extracted is not None
        assert extracted.read() == b"static"


def test_blobs_are_named_by_their_content(tmp_path: Path) -> None:
    write_archive([image(tmp_path)], tmp_path / "x.tar")
    blobs = {name.rpartition("/")[2]: data for name, data in contents(tmp_path / "x.tar").items() if "blobs" in name}
    assert len(blobs) == 3
    assert {name: hashlib.sha256(data).hexdigest() for name, data in blobs.items()} == {name: name for name in blobs}


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write_archive([image(tmp_path)], tmp_path / "x.tar")
    write_archive([image(tmp_path)], tmp_path / "y.tar")
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()


def test_several_images_share_one_archive(tmp_path: Path) -> None:
    images = [image(tmp_path), image(tmp_path, reference="localhost/program:2")]
    write_archive(images, tmp_path / "x.tar")
    index = json.loads(contents(tmp_path / "x.tar")["index.json"])
    assert [manifest["annotations"]["io.containerd.image.name"] for manifest in index["manifests"]] == [
        "localhost/program:1",
        "localhost/program:2",
    ]


LISTED = """\
REF                  TYPE                                       DIGEST     SIZE     PLATFORMS   LABELS
localhost/router:dev application/vnd.oci.image.manifest.v1+json sha256:bb  10.0 MiB linux/amd64 a=b
sha256:0000          application/vnd.oci.image.manifest.v1+json sha256:aa  10.0 MiB linux/amd64 a=b
sha256:1111          application/vnd.oci.image.manifest.v1+json sha256:bb  10.0 MiB linux/amd64 a=b
"""


def test_image_whose_tag_has_moved_on_is_untagged() -> None:
    found = parse_image_list(LISTED)
    assert found == {"localhost/router:dev": "sha256:bb", "sha256:0000": "sha256:aa", "sha256:1111": "sha256:bb"}
    assert untagged(found) == ["sha256:0000"]
