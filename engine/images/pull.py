"""One pull: manifest, configuration, layers; staged, checked, unpacked, then published at once."""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError, ProtocolError

from engine.base.errors import EngineError, InvalidArgument, NotSupported, OutOfSpace, Unavailable
from engine.base.ids import short
from engine.images import progress
from engine.images.archive import ArchivedImage
from engine.images.documents import parse_config, parse_image_manifest
from engine.images.intake import Intake
from engine.images.library import Library
from engine.images.limits import bounded_by_disk
from engine.images.model import RegistryAuth
from engine.images.operation import Operation
from engine.images.platforms import choose
from engine.images.registry import Registry, Unknown
from engine.spec import digest as digests
from engine.spec.distribution import Descriptor, Index, Manifest, Platform
from engine.spec.image import ImageConfig
from engine.spec.reference import Reference

_PARALLEL = 3
_ATTEMPTS = 5
_CHUNK_BYTES = 1 << 18
_REPORT_BYTES = 1 << 20
_PARTIAL = 206


class Pull:
    """One pull of one reference for one platform."""

    def __init__(  # noqa: PLR0917 (each is a different thing)
        self,
        library: Library,
        intake: Intake,
        operation: Operation,
        name: Reference,
        platform: Platform,
        auth: RegistryAuth,
    ) -> None:
        self._library = library
        self._intake = intake
        self._operation = operation
        self._name = name
        self._platform = platform
        self._registry = Registry(name, auth)
        self._limits = library.limits

    async def run(self) -> str:
        """Do it all and return the image's id."""
        wanted = self._name.digest or self._name.tag
        digest, manifest_digest, manifest = await asyncio.to_thread(self._resolve, wanted)
        image_id = manifest.config.digest
        self._say(progress.message(f"Pulling from {self._name.path}", object_id=wanted))
        names = [self._name.with_digest(digest)]
        if self._name.tag:
            names.append(self._name.with_tag(self._name.tag))
        news = "Image is up to date"
        if not await self._library.name(names, image_id):
            news = "Downloaded newer image"
            image = await self._fetch(manifest, manifest_digest)
            self._operation.check()
            await self._library.publish(self._intake, [image], [(name, image_id) for name in names])
        self._say(progress.message(f"Digest: {digest}"))
        self._say(progress.message(f"Status: {news} for {self._name.familiar}"))
        return image_id

    def _say(self, item: progress.Progress) -> None:
        self._operation.report(item)

    def _resolve(self, wanted: str) -> tuple[str, str, Manifest]:
        """Return the digest of what the name means, and the manifest for the platform with its digest."""
        digest, data, document = self._document(wanted)
        if isinstance(document, Manifest):
            self._intake.add_bytes(data)
            return digest, digest, document
        chosen = choose(document.manifests, self._platform)
        if chosen is None:
            raise Unknown(f"no matching manifest for {self._platform} in the manifest list entries")
        own, data, manifest = self._document(chosen.digest)
        if not isinstance(manifest, Manifest):
            raise InvalidArgument(f"{self._name.familiar}: an index in an index")
        self._intake.add_bytes(data)
        return digest, own, manifest

    def _document(self, wanted: str) -> tuple[str, bytes, Manifest | Index]:
        data, media_type = self._registry.manifest(wanted, self._limits.document_bytes)
        digest = digests.sha256(data)
        if wanted.startswith("sha256:") and digest != wanted:
            raise InvalidArgument(f"manifest {wanted} has the digest {digest}")
        return digest, data, parse_image_manifest(data, media_type or None, self._limits)

    async def _fetch(self, manifest: Manifest, manifest_digest: str) -> ArchivedImage:
        config = await asyncio.to_thread(self._config, manifest.config)
        image = ArchivedImage(
            id=manifest.config.digest,
            config=config,
            manifest_digest=manifest_digest,
            layer_digests=tuple(layer.digest for layer in manifest.layers),
            names=(),
        )
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"the configuration names {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}"
            )
        await self._fetch_layers(manifest.layers, image)
        return image

    def _config(self, descriptor: Descriptor) -> ImageConfig:
        if descriptor.size > self._limits.document_bytes:
            raise InvalidArgument(f"image configuration of {descriptor.size} bytes")
        # Always fetched: the stored one may be why the image is not there.
        path = self._transfer(descriptor, lambda _: self._operation.check())
        return parse_config(path.read_bytes(), self._limits)

    async def _fetch_layers(self, layers: Sequence[Descriptor], image: ArchivedImage) -> None:
        """Download the layers side by side; unpack each as soon as it and those below are there."""
        unique = {layer.digest: layer for layer in layers}
        for layer in unique.values():
            self._say(progress.step("Pulling fs layer", short(layer.digest)))
        failed = threading.Event()
        gate = asyncio.Semaphore(_PARALLEL)

        async def one(layer: Descriptor) -> bool:
            async with gate:
                return not failed.is_set() and await asyncio.to_thread(self._download, layer, failed)

        downloads = {digest: asyncio.ensure_future(one(layer)) for digest, layer in unique.items()}
        try:
            chain_ids = digests.chain_ids(image.config.diff_ids)
            for layer, diff_id, chain_id in zip(layers, image.config.diff_ids, chain_ids, strict=True):
                await _one_of(downloads.values(), downloads[layer.digest])
                is_new = downloads[layer.digest].result()
                await asyncio.to_thread(self._unpack, layer, diff_id, chain_id, is_new)
        finally:
            # Not cancelled: a thread cannot be, and must have ended before the clean-up.
            failed.set()
            await asyncio.gather(*downloads.values(), return_exceptions=True)

    def _download(self, layer: Descriptor, failed: threading.Event) -> bool:
        """Bring in the blob of a layer; False when it is there already."""
        name = short(layer.digest)
        if self._intake.has_blob(layer.digest, layer.size):
            self._say(progress.step("Already exists", name))
            return False
        last = 0

        def report(count: int) -> None:
            nonlocal last
            self._operation.check()
            if failed.is_set():
                raise EngineError("another layer failed")
            if count - last >= _REPORT_BYTES or count == layer.size:
                last = count
                self._say(progress.advance("Downloading", name, count, layer.size))

        self._transfer(layer, report)
        self._say(progress.step("Verifying Checksum", name))
        self._say(progress.step("Download complete", name))
        return True

    def _transfer(self, blob: Descriptor, report: Callable[[int], None]) -> Path:
        if not blob.digest.startswith("sha256:"):
            raise NotSupported(f"digest {blob.digest[:20]}... is not sha256")
        path = self._intake.new_path()
        room = bounded_by_disk(self._limits.archive_bytes, path.parent)
        if blob.size > room:
            raise OutOfSpace(f"blob {blob.digest} has {blob.size} bytes, there is room for {room}")
        _Transfer(self._registry, blob, path, report).run()
        self._intake.add_blob(blob.digest, path)
        return path

    def _unpack(self, layer: Descriptor, diff_id: str, chain_id: str, is_new: bool) -> None:
        name = short(layer.digest)
        last = 0

        def step(count: int) -> None:
            nonlocal last
            self._operation.check()
            if count - last >= _REPORT_BYTES or count == layer.size:
                last = count
                self._say(progress.advance("Extracting", name, count, layer.size))

        is_there = self._intake.has_layer(chain_id)
        try:
            if is_there:
                self._intake.check(layer.digest, diff_id, step)
            else:
                self._intake.unpack(self._intake.blob_path(layer.digest), diff_id, chain_id, step)
        except InvalidArgument as err:
            raise InvalidArgument(f"invalid layer {name}: {err}") from err
        if is_new or not is_there:
            self._say(progress.step("Pull complete", name))


async def _one_of(all_: Iterable[asyncio.Future[bool]], wanted: asyncio.Future[bool]) -> None:
    """Wait for `wanted`; raise what any of them fails with, at once."""
    pending = {future for future in all_ if not future.done()}
    while True:
        for future in all_:
            if future.done() and (error := future.exception()) is not None:
                raise error
        if wanted.done():
            return
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


class _Transfer:
    """The bytes of one blob to a file, checked."""

    def __init__(
        self, registry: Registry, blob: Descriptor, path: Path, report: Callable[[int], None]
    ) -> None:
        self._registry = registry
        self._blob = blob
        self._path = path
        self._report = report
        self._hash = hashlib.sha256()
        self._count = 0

    def run(self) -> None:
        """Fetch it all.

        Raises:
            InvalidArgument: the bytes are not those of the digest.
            Unavailable: the connection was lost too often.
        """
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            for attempt in range(_ATTEMPTS):
                try:
                    self._attempt(file)
                    break
                except HTTPError as err:
                    if attempt == _ATTEMPTS - 1:
                        raise Unavailable(f"blob {self._blob.digest}: connection lost: {err}") from err
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._blob.digest:
            raise InvalidArgument(f"blob {self._blob.digest} arrived with the digest {digest}")

    def _attempt(self, file: Any) -> None:  # noqa: ANN401 (an unbuffered file)
        answer = self._registry.blob(self._blob.digest, self._count)
        try:
            if self._count and not self._goes_on(answer):
                file.seek(0)
                file.truncate()
                self._hash, self._count = hashlib.sha256(), 0
                if answer.status == _PARTIAL:
                    raise ProtocolError("the registry sent another range than was asked for")
            while data := _read(answer):
                self._count += len(data)
                if self._count > self._blob.size:
                    raise InvalidArgument(f"blob {self._blob.digest} has more than {self._blob.size} bytes")
                self._hash.update(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                self._report(self._count)
            if self._count < self._blob.size:
                raise ProtocolError(f"only {self._count} of {self._blob.size} bytes")
        finally:
            answer.close()

    def _goes_on(self, answer: Any) -> bool:  # noqa: ANN401 (urllib3's response)
        span = str(answer.headers.get("Content-Range", ""))
        return answer.status == _PARTIAL and span.startswith(f"bytes {self._count}-")


def _read(answer: Any) -> bytes:  # noqa: ANN401 (urllib3's response)
    """Return the next bytes; a lost connection is an HTTPError, however it shows."""
    try:
        data: bytes = answer.read(_CHUNK_BYTES)
    except (OSError, EOFError) as err:
        raise ProtocolError(f"{err}") from err
    return data
