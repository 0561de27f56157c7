"""A real image of a real program through a real registry into an app: pushed, pulled, built, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.linux import process
from brickless.oci import manifest_src
from brickless.oci.app import UP_TO_DATE, Build, add_app, install_app, update_app
from brickless.oci.auth import Credentials
from brickless.oci.reference import Reference
from brickless.oci.registry import Access, RegistryClient, RegistryError
from brickless.store.objects import ObjectStore
from brickless.testkit import debian_image
from brickless.testkit.registry import Registry

CACHE = Path(__file__).parents[2] / ".cache" / "debian"

pytestmark = pytest.mark.needs("registry")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    return {
        "1": debian_image.nginx_image(folder / "1", "<h1>version 1</h1>\n", CACHE),
        "2": debian_image.nginx_image(folder / "2", "<h1>version 2</h1>\n", CACHE),
    }


def unpacked(squashfs: Path, dest: Path) -> Path:
    process.run(
        ["unsquashfs", "-q", "-n", "-no-xattrs", "-d", str(dest), str(squashfs)],
        purpose="unpack",
        timeout_s=60,
        check=False,
    )
    return dest


@pytest.mark.parametrize("password", [False, True], ids=["open", "basic"])
def test_add_install_and_update_through_a_real_registry(
    layouts: dict[str, Path], tmp_path: Path, password: bool
) -> None:
    said: list[str] = []
    with Registry(password=password) as registry:
        source = registry.push(layouts["1"], "team/web:stable")
        build = Build(cache=tmp_path / "cache", access=registry.access, say=said.append)
        add_app(tmp_path, "web", source, build=build)
        app = tmp_path / "web"
        first = manifest_src.read(app)
        assert first["docker_name"] == f"{registry.address}/team/web"
        assert first["docker_tag"] == "stable"
        assert (app / "root.squashfs.docker-digest").read_text() == first["docker_digest"]
        root = unpacked(app / "root.squashfs", tmp_path / "root")
        assert (root / "srv/www/index.html").read_text() == "<h1>version 1</h1>\n"
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
        assert (root / "lib").is_symlink()
        assert 'lxc.init.cmd = /usr/sbin/nginx "-g""daemon off;"\n' in (app / "lxc.container.conf").read_text()

        install_app(tmp_path, "web", build=build)
        assert said[-1] == UP_TO_DATE

        registry.push(layouts["2"], "team/web:stable")
        update_app(tmp_path, "web", build=build)
        assert manifest_src.read(app)["docker_digest"] != first["docker_digest"]
        root = unpacked(app / "root.squashfs", tmp_path / "root2")
        assert (root / "srv/www/index.html").read_text() == "<h1>version 2</h1>\n"


def test_the_same_image_gives_the_same_bytes_from_any_source(layouts: dict[str, Path], tmp_path: Path) -> None:
    with Registry() as registry:
        source = registry.push(layouts["1"], "web:1")
        add_app(tmp_path, "a", source, build=Build(cache=tmp_path / "cache"))
    add_app(tmp_path, "b", f"oci:{layouts['1']}", build=Build(cache=tmp_path / "cache"))
    tar = tmp_path / "image.tar"
    process.run(["tar", "-cf", str(tar), "-C", str(layouts["1"]), "."], purpose="archive", timeout_s=60)
    add_app(tmp_path, "c", f"oci-archive:{tar}:latest", build=Build(cache=tmp_path / "cache"))
    with tar.open("rb") as stdin:
        add_app(tmp_path, "d", "-", build=Build(cache=tmp_path / "cache", stdin=stdin))
    images = {(tmp_path / name / "root.squashfs").read_bytes() for name in "abcd"}
    assert len(images) == 1


def test_refusals_are_clear_and_leave_nothing(layouts: dict[str, Path], tmp_path: Path) -> None:
    with Registry(password=True) as registry:
        source = registry.push(layouts["1"], "web:1")
        cases = [
            (source, Access(), "wants credentials"),
            (source, Access(credentials=Credentials("brick", "wrong")), "answered 401"),
            (source.replace("web:1", "web:9"), registry.access, "answered 404"),
            (source.replace("web:1", "none:1"), registry.access, "answered 404"),
        ]
        for name, access, message in cases:
            with pytest.raises(RegistryError, match=message):
                add_app(tmp_path, "web", name, build=Build(cache=tmp_path / "cache", access=access))
        assert not (tmp_path / "web").exists()
    with pytest.raises(RegistryError, match="cannot reach"):
        add_app(tmp_path, "web", source, build=Build(cache=tmp_path / "cache"))
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


def test_a_damaged_cache_heals_and_an_interrupted_download_goes_on(layouts: dict[str, Path], tmp_path: Path) -> None:
    with Registry() as registry:
        reference = Reference.parse(registry.push(layouts["1"], "web:1"))
        cache = ObjectStore(str(tmp_path / "cache"))
        with RegistryClient(reference, cache) as client:
            layer = client.image().layers[0].descriptor
            assert layer is not None
            whole = (layouts["1"] / "blobs/sha256" / layer.sha).read_bytes()
            cache.prepare()
            with cache.partial(layer.sha) as partial:
                partial.append(whole[:1000])
            assert b"".join(client.chunks(layer, "layer 1")) == whole
        Path(cache.path(layer.sha)).chmod(0o644)
        Path(cache.path(layer.sha)).write_bytes(whole[:-1] + b"x")
        add_app(tmp_path, "web", str(reference), build=Build(cache=tmp_path / "cache"))
        assert cache.verify(layer.sha)
    # The registry's log is complete once it has ended.
    assert any(f"{len(whole) - 1000}" in line and " 206 " in line for line in registry.log)
