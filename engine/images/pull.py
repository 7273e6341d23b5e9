"""One pull: manifest, configuration, layers; staged, checked, unpacked, then published at once."""

import asyncio
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from engine.base.errors import EngineError, InvalidArgument, NotSupported, Unavailable
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
        self._say(progress.message(f"Pulling from {self._name.path}", object_id=wanted))
        names = [(self._name.with_digest(digest), manifest.config.digest)]
        if self._name.tag:
            names.append((self._name.with_tag(self._name.tag), manifest.config.digest))
        present = self._library.store.get(manifest.config.digest)
        if present is None:
            image = await self._fetch(manifest, manifest_digest)
            self._operation.check()
            await self._library.publish(self._intake, [image], names)
        else:
            await self._library.store.add((), names)
        news = "Image is up to date" if present else "Downloaded newer image"
        self._say(progress.message(f"Digest: {digest}"))
        self._say(progress.message(f"Status: {news} for {self._name.familiar}"))
        return manifest.config.digest

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
        await self._fetch_layers(manifest.layers)
        await asyncio.to_thread(self._unpack, image)
        return image

    def _config(self, descriptor: Descriptor) -> ImageConfig:
        if descriptor.size > self._limits.document_bytes:
            raise InvalidArgument(f"image configuration of {descriptor.size} bytes")
        path = self._download(descriptor, quiet=True)
        return parse_config(path.read_bytes(), self._limits)

    async def _fetch_layers(self, layers: Sequence[Descriptor]) -> None:
        unique = {layer.digest: layer for layer in layers}
        for layer in unique.values():
            self._say(progress.step("Pulling fs layer", short(layer.digest)))
        gate = asyncio.Semaphore(_PARALLEL)
        failed = threading.Event()

        async def one(layer: Descriptor) -> None:
            async with gate:
                if failed.is_set():
                    return
                try:
                    await asyncio.to_thread(self._download, layer, failed=failed)
                except BaseException:
                    failed.set()  # so that the others end at their next bytes
                    raise

        # Not cancelled on a failure: a thread cannot be, and must have ended before the clean-up.
        results = await asyncio.gather(*map(one, unique.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _download(
        self, layer: Descriptor, *, quiet: bool = False, failed: threading.Event | None = None
    ) -> Path:
        """Bring in one blob, going on where a lost connection left off; return where it is."""
        if self._library.content.has(layer.digest):
            if not quiet:
                self._say(progress.step("Already exists", short(layer.digest)))
            return self._library.content.path(layer.digest)
        if not layer.digest.startswith("sha256:"):
            raise NotSupported(f"digest {layer.digest[:20]}... is not sha256")
        path = self._intake.new_path()
        if layer.size > bounded_by_disk(self._limits.archive_bytes, path.parent):
            raise InvalidArgument(f"blob {layer.digest} has {layer.size} bytes, more than there is room for")
        transfer = _Transfer(self._registry, layer, path, self._reporter(layer, quiet, failed))
        transfer.run()
        self._intake.add_blob(layer.digest, path)
        if not quiet:
            self._say(progress.step("Verifying Checksum", short(layer.digest)))
            self._say(progress.step("Download complete", short(layer.digest)))
        return path

    def _reporter(self, layer: Descriptor, quiet: bool, failed: threading.Event | None) -> Any:  # noqa: ANN401
        last = 0

        def report(count: int) -> None:
            nonlocal last
            self._operation.check()
            if failed is not None and failed.is_set():
                raise EngineError("another layer failed")
            if not quiet and (count - last >= _REPORT_BYTES or count == layer.size):
                last = count
                self._say(progress.advance("Downloading", short(layer.digest), count, layer.size))

        return report

    def _unpack(self, image: ArchivedImage) -> None:
        chains = digests.chain_ids(image.config.diff_ids)
        for diff_id, chain, blob in zip(image.config.diff_ids, chains, image.layer_digests, strict=True):
            if not self._intake.has_layer(chain):
                self._say(progress.step("Extracting", short(blob)))
                try:
                    self._intake.unpack(
                        self._intake.blob_path(blob), diff_id, chain, lambda _: self._operation.check()
                    )
                except InvalidArgument as err:
                    raise InvalidArgument(f"invalid layer {short(blob)}: {err}") from err
            self._say(progress.step("Pull complete", short(blob)))


class _Transfer:
    """The bytes of one blob to a file, checked."""

    def __init__(self, registry: Registry, blob: Descriptor, path: Path, report: Any) -> None:  # noqa: ANN401
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
                except (HTTPError, OSError) as err:
                    if isinstance(err, OSError) and err.errno is not None and err.filename is not None:
                        raise
                    if attempt == _ATTEMPTS - 1:
                        raise Unavailable(f"blob {self._blob.digest}: connection lost: {err}") from err
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._blob.digest:
            raise InvalidArgument(f"blob {self._blob.digest} arrived with the digest {digest}")

    def _attempt(self, file: Any) -> None:  # noqa: ANN401 (an unbuffered file)
        answer = self._registry.blob(self._blob.digest, self._count)
        try:
            if self._count and answer.status != _PARTIAL:  # it begins again
                file.seek(0)
                file.truncate()
                self._hash, self._count = hashlib.sha256(), 0
            while data := answer.read(_CHUNK_BYTES):
                self._count += len(data)
                if self._count > self._blob.size:
                    raise InvalidArgument(f"blob {self._blob.digest} has more than {self._blob.size} bytes")
                self._hash.update(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                self._report(self._count)
            if self._count < self._blob.size:
                raise HTTPError(f"{self._count} of {self._blob.size} bytes")
        finally:
            answer.close()
