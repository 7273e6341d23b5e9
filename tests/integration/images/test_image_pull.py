"""Pull from Debian's registry filled by skopeo, and from one that fails on purpose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.base.errors import Denied, InvalidArgument, NotFound, Unavailable
from engine.images.model import RegistryAuth
from engine.images.service import ImageService
from tests.support import archives
from tests.support.archives import Member, tar
from tests.support.imagelab import ImageLab
from tests.support.registrylab import (
    FakeRegistry,
    basic,
    cut_after,
    push,
    random_layer,
    real_registry,
    reply,
)

pytestmark = pytest.mark.requires("root")

LAYERS = [tar([Member("low", b"low\n")]), tar([Member("high", b"high\n")])]


@pytest.fixture
def lab(tmp_path: Path) -> ImageLab:
    return ImageLab(tmp_path / "root")


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    with registry.serving():
        yield registry


def statuses(said: list[dict[str, Any]]) -> list[str]:
    return [item.get("status", "") for item in said]


def error(said: list[dict[str, Any]]) -> str:
    return str(said[-1].get("errorDetail", {}).get("message", ""))


@pytest.mark.requires("registry", "skopeo")
def test_what_skopeo_pushed_is_pulled_as_docker_pulls_it(lab: ImageLab, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(archives.docker_archive(LAYERS))
    with real_registry(tmp_path) as host:
        push(archive, f"{host}/team/app:1")
        said = lab.pull(f"{host}/team/app:1")
        again = lab.pull(f"{host}/team/app:1")
        digest = statuses(said)[-2].removeprefix("Digest: ")
        by_digest = lab.pull(f"{host}/team/app@{digest}")

    assert said[0] == {"status": "Pulling from team/app", "id": "1"}
    for word in ("Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"):
        assert statuses(said).count(word) == 2
    downloading = next(item for item in said if item["status"] == "Downloading")
    assert 0 < downloading["progressDetail"]["current"] <= downloading["progressDetail"]["total"]
    assert said[-1] == {"status": f"Status: Downloaded newer image for {host}/team/app:1"}
    assert statuses(again)[1:] == [f"Digest: {digest}", f"Status: Image is up to date for {host}/team/app:1"]
    assert statuses(by_digest)[-1] == f"Status: Image is up to date for {host}/team/app@{digest}"
    assert lab.events[0] == ("pull", archives.image_id(LAYERS), f"{host}/team/app:1")

    async def look(service: ImageService) -> None:
        [shown] = service.list()
        assert shown["Id"] == archives.image_id(LAYERS)
        assert shown["RepoDigests"] == [f"{host}/team/app@{digest}"]

    lab.run(look)
    assert (lab.layer(1, archives.image_id(LAYERS)) / "high").read_text() == "high\n"


@pytest.mark.requires("registry", "skopeo")
def test_a_registry_with_passwords(lab: ImageLab, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(archives.docker_archive(LAYERS))
    with real_registry(tmp_path, user="me", password="secret") as host:
        push(archive, f"{host}/app:1", "--dest-creds", "me:secret")
        for wrong in (None, RegistryAuth("me", "wrong")):
            with pytest.raises(Denied, match=f"pull access denied for {host}/app, repository does not exist"):
                lab.pull(f"{host}/app:1", auth=wrong)
        lab.pull(f"{host}/app:1", auth=RegistryAuth("me", "secret"))

    assert lab.tags() == [f"{host}/app:1"]


def test_a_manifest_is_chosen_by_platform(lab: ImageLab, fake: FakeRegistry) -> None:
    entries = []
    for architecture in ("arm64", "amd64"):
        layer = tar([Member("arch", architecture.encode())])
        digest = fake.add_image("app", architecture, [layer], architecture=architecture)
        size = len(fake.documents[f"app/manifests/{digest}"][1])
        entries.append(
            {
                "mediaType": fake.documents[f"app/manifests/{digest}"][0],
                "digest": digest,
                "size": size,
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    index = fake.add_manifest("app", "1", {"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    name = f"{fake.host}/app:1"

    said = lab.pull(name, platform="linux/arm64")
    assert (lab.layer(0, name) / "arch").read_text() == "arm64"
    assert f"Digest: {index}" in statuses(said)
    lab.pull(name, platform="linux/amd64")
    assert (lab.layer(0, name) / "arch").read_text() == "amd64"
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        lab.pull(name, platform="linux/s390x")


def test_a_token_is_asked_for_and_used(lab: ImageLab, fake: FakeRegistry) -> None:
    fake.add_image("app", "1", LAYERS)
    fake.challenge = f'Bearer realm="http://{fake.host}/token",service="test",scope="repository:app:pull"'
    fake.accepted = {"Bearer good"}
    query = "/token?service=test&scope=repository%3Aapp%3Apull"
    for _ in range(2):
        fake.fail(query, lambda request: reply(request, 200, b'{"token": "good"}'))

    lab.pull(f"{fake.host}/app:1")
    assert "authorization" not in fake.seen("/token")[0]
    lab.run(lambda service: service.remove(f"{fake.host}/app:1"))
    lab.pull(f"{fake.host}/app:1", auth=RegistryAuth("me", "secret"))
    assert fake.seen("/token")[1]["authorization"] == basic("me", "secret")
    assert all("secret" not in str(headers) for headers in fake.seen("app/"))


def test_a_cut_connection_goes_on_where_it_was(lab: ImageLab, fake: FakeRegistry) -> None:
    layer = random_layer(3_000_000)
    path = f"app/blobs/{archives.digest(layer)}"
    fake.add_image("app", "1", [layer])
    fake.fail(path, cut_after(layer, 1_000_000), cut_after(layer, 1_200_000))

    said = lab.pull(f"{fake.host}/app:1")

    assert not error(said)
    asked = [int(headers.get("range", "bytes=0-")[6:-1]) for headers in fake.seen(path)]
    assert len(asked) == 3
    assert asked == [0, 1_000_000, 2_200_000]
    assert (lab.layer(0, f"{fake.host}/app:1") / "data").stat().st_size == 3_000_000


def test_another_range_than_was_asked_for_is_not_believed(lab: ImageLab, fake: FakeRegistry) -> None:
    layer = random_layer(2_000_000)
    fake.add_image("app", "1", [layer])
    path = f"app/blobs/{archives.digest(layer)}"
    span = {"Content-Range": f"bytes 5-{len(layer) - 1}/{len(layer)}"}
    fake.fail(path, cut_after(layer, 1_000_000), lambda request: reply(request, 206, layer[5:], span))

    assert not error(lab.pull(f"{fake.host}/app:1"))
    assert "range" not in fake.seen(path)[2]


def test_a_registry_without_ranges_begins_again(lab: ImageLab, fake: FakeRegistry) -> None:
    layer = random_layer(2_000_000)
    fake.ranges = False
    fake.add_image("app", "1", [layer])
    fake.fail(f"app/blobs/{archives.digest(layer)}", cut_after(layer, 1_000_000))

    assert not error(lab.pull(f"{fake.host}/app:1"))
    assert (lab.layer(0, f"{fake.host}/app:1") / "data").stat().st_size == 2_000_000


def test_a_connection_that_is_always_cut_is_given_up(lab: ImageLab, fake: FakeRegistry) -> None:
    layer = random_layer(1_000_000)
    fake.ranges = False
    fake.add_image("app", "1", [layer, LAYERS[0]])
    fake.fail(f"app/blobs/{archives.digest(layer)}", *[cut_after(layer, 10_000)] * 20)

    assert "connection lost" in error(lab.pull(f"{fake.host}/app:1"))
    assert lab.tags() == []
    assert lab.stored() == set()


def test_bytes_of_another_digest_or_size_are_refused(lab: ImageLab, fake: FakeRegistry) -> None:
    fake.add_image("app", "1", LAYERS)
    path = f"app/blobs/{archives.digest(LAYERS[1])}"
    kind, good = fake.documents[path]
    for bad, message in (
        (good[:-1] + b"x", "arrived with the digest"),
        (good + b"\0" * 512, f"has more than {len(good)} bytes"),
    ):
        fake.documents[path] = (kind, bad)
        assert message in error(lab.pull(f"{fake.host}/app:1"))
        assert lab.stored() == set()


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(
    lab: ImageLab, fake: FakeRegistry
) -> None:
    wrong = {"type": "layers", "diff_ids": [archives.digest(LAYERS[1])]}
    fake.add_image("app", "1", [LAYERS[0]], rootfs=wrong)

    assert "invalid layer" in error(lab.pull(f"{fake.host}/app:1"))
    assert lab.stored() == set()


def test_answers_of_a_registry_in_dockers_words(lab: ImageLab, fake: FakeRegistry) -> None:
    name = f"{fake.host}/app"
    with pytest.raises(
        NotFound, match=f"manifest for {name}:2 not found: manifest unknown: manifest unknown"
    ):
        lab.pull(f"{name}:2")
    fake.fail("app/manifests/2", lambda request: reply(request, 503, b"busy"))
    with pytest.raises(Unavailable, match="answers 503"):
        lab.pull(f"{name}:2")
    fake.add_manifest("app", "3", {"schemaVersion": 1, "mediaType": "application/json", "fsLayers": []})
    with pytest.raises(InvalidArgument, match="schema 1 is not supported"):
        lab.pull(f"{name}:3")
    with pytest.raises(Unavailable, match=r"cannot reach registry 127\.0\.0\.1:1: "):
        lab.pull("127.0.0.1:1/app:1")


def test_credentials_are_not_sent_to_another_host(lab: ImageLab, fake: FakeRegistry) -> None:
    fake.add_image("app", "1", LAYERS)
    other = FakeRegistry()
    other.add_image("app", "1", LAYERS)
    fake.challenge, fake.accepted = "Basic realm=x", {basic("me", "secret")}
    path = f"app/blobs/{archives.digest(LAYERS[0])}"
    with other.serving() as host:
        # Another name for loopback is another host.
        target = f"http://localhost:{host.rpartition(':')[2]}/v2/{path}"
        fake.fail(path, lambda request: reply(request, 307, b"", {"Location": target}))
        lab.pull(f"{fake.host}/app:1", auth=RegistryAuth("me", "secret"))

    [headers] = other.seen(path)
    assert "authorization" not in headers
    assert lab.tags() == [f"{fake.host}/app:1"]


def test_a_client_that_goes_away_ends_the_pull(lab: ImageLab, fake: FakeRegistry) -> None:
    fake.add_image("app", "1", [random_layer(4_000_000)])

    async def work(service: ImageService) -> None:
        stream = service.pull(f"{fake.host}/app:1")
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    lab.run(work)
    assert lab.tags() == []
    assert lab.stored() == set()
