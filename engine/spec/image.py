"""Configuration of an image: what `docker image inspect` shows and a container starts from.

Image configurations are written by many programs; fields that this engine
does not use are ignored, `null` stands for absent everywhere, and only the
fields below are kept. The bytes themselves are kept as a blob: an image's id
is their digest.

Source: OCI image-spec 1.1, config.md; docker image specification 1.2
(`Healthcheck`, `Shell`, `OnBuild`).
"""

import msgspec


class Healthcheck(msgspec.Struct, rename="pascal", omit_defaults=True, frozen=True):
    """How to tell whether the container works; durations in nanoseconds, 0: the default."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, rename="pascal", omit_defaults=True, frozen=True):
    """Defaults for a container: the `config` member of the document."""

    user: str | None = None
    exposed_ports: dict[str, dict[str, object] | None] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool | None = None
    volumes: dict[str, dict[str, object] | None] | None = None
    working_dir: str | None = None
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    shell: tuple[str, ...] | None = None


class RootFS(msgspec.Struct, omit_defaults=True, frozen=True):
    """The layers, bottom first, by the digests of their uncompressed tar archives."""

    type: str = "layers"
    diff_ids: tuple[str, ...] | None = None


class History(msgspec.Struct, omit_defaults=True, frozen=True):
    """How one layer, or one setting, came to be."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class ImageConfig(msgspec.Struct, omit_defaults=True, frozen=True):
    """The whole document."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    docker_version: str | None = None
    config: ContainerConfig | None = None
    rootfs: RootFS | None = None
    history: tuple[History, ...] | None = None

    @property
    def defaults(self) -> ContainerConfig:
        """`config`, never absent."""
        return self.config or ContainerConfig()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the layers, bottom first; empty for an image without layers."""
        return (self.rootfs.diff_ids if self.rootfs else None) or ()
