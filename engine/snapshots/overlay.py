"""Snapshots by overlayfs: the layers below, one directory of the container on top.

    ROOT/containers/<id>/upper         what the container writes
                        /work          overlayfs's own
                        /snapshot.json the layers it stands on

Nothing is mounted here: the mount is described, and made by the runtime in the
container's mount namespace.

Source: Linux, Documentation/filesystems/overlayfs.rst.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import EngineError, InvalidArgument, NotFound, NotSupported, OutOfSpace
from engine.base.paths import ContainerDir, Root
from engine.snapshots import trees
from engine.snapshots.model import Usage
from engine.spec.runtime import Mount

TMP_PREFIX = "snapshot-"
_OPTIONS_MAX_BYTES = 4095  # mount(2) takes one page of options, with its NUL
_LINK_CHARS = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SPECIAL = frozenset(":,\\\n\"' \t")  # what would need escapes in overlayfs's options


class _Snapshot(msgspec.Struct, frozen=True):
    """`snapshot.json`."""

    chain_ids: tuple[str, ...]
    volatile: bool
    boot_id: str


class OverlaySnapshotter:
    """A `Snapshotter`; see `engine.snapshots.model`."""

    name = "overlay2"

    def __init__(self, root: Root) -> None:
        """Work below `root`.

        Raises:
            NotSupported: its path has a character that overlayfs's options cannot hold.
        """
        if _SPECIAL & set(str(root.path)):
            raise NotSupported(
                f"{root.path}: overlayfs needs a path without blanks, quotes, commas and colons"
            )
        self._root = root

    def open(self) -> None:
        """Remove what a crash left of a removal; see the Protocol."""
        self._root.tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        trees.sweep(self._root.tmp, TMP_PREFIX)

    def prepare(self, key: str, chain_ids: Sequence[str], *, volatile: bool = False) -> tuple[Mount, ...]:
        """Make, or find again, the snapshot; see the Protocol."""
        if not chain_ids:
            return self._prepare_empty(key, volatile=volatile)
        container = self._make(key, chain_ids, volatile=volatile)
        return (self._overlay(self.layer_dirs(chain_ids), container, volatile=volatile),)

    def remove(self, key: str) -> None:
        """Remove the snapshot; see the Protocol."""
        container = self._root.container(key)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_record_path(container))
        doomed: list[Path] = []
        for path in (container.upper, container.work):
            aside = self._root.tmp / f"{TMP_PREFIX}{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)
                doomed.append(aside)
        for path in doomed:
            trees.remove(path)

    def usage(self, key: str) -> Usage:
        """Measure the upper directory; see the Protocol."""
        return Usage(*trees.usage(self._root.container(key).upper))

    def layer_dirs(self, chain_ids: Sequence[str]) -> tuple[Path, ...]:
        """Return the layers' directories, topmost first."""
        return tuple(self._diff(chain_id) for chain_id in reversed(chain_ids))

    def pinned_layers(self) -> frozenset[str]:
        """Return the chain ids below all snapshots; a damaged record is an error, never nothing."""
        pinned: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._root.containers):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    record = jsonio.read(_record_path(self._root.container(name)), _Snapshot)
                    pinned.update(record.chain_ids)
        return frozenset(pinned)

    def _check_layers(self, chain_ids: Sequence[str]) -> None:
        for path in self.layer_dirs(chain_ids):
            if not path.is_dir():
                raise NotFound("layer", path.parent.name)

    def _prepare_empty(self, key: str, *, volatile: bool) -> tuple[Mount, ...]:
        """An image without layers: the upper directory alone is the root."""
        container = self._make(key, (), volatile=volatile)
        return (Mount(destination="/", type="bind", source=str(container.upper), options=("bind",)),)

    def _make(self, key: str, chain_ids: Sequence[str], *, volatile: bool) -> ContainerDir:
        container = self._root.container(key)
        record = _read_record(container)
        boot_id = _BOOT_ID.read_text().strip()
        if record is not None and record.chain_ids != tuple(chain_ids):
            raise InvalidArgument(f"snapshot {key[:12]} stands on other layers")
        if record is not None and record.volatile:
            self._revive_volatile(container, same_boot=record.boot_id == boot_id)
        wanted = _Snapshot(tuple(chain_ids), volatile, boot_id)
        try:
            container.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if record != wanted:
                _write_record(container, wanted)
            self._check_layers(chain_ids)  # after they were noted: a sweep looks at the notes last
            container.work.mkdir(mode=0o700, exist_ok=True)
            self._make_upper(container, chain_ids)
        except (OSError, NotFound) as err:
            if record is None:
                self.remove(key)
            full = OutOfSpace.of(err, f"snapshot {key[:12]}")
            if full is not None:
                raise full from err
            raise
        return container

    def _make_upper(self, container: ContainerDir, chain_ids: Sequence[str]) -> None:
        """Make the upper directory look like the root that it will hide."""
        try:
            container.upper.mkdir(mode=0o755)
        except FileExistsError:
            return
        mode, uid, gid = 0o755, 0, 0
        if chain_ids:
            status = os.stat(self._diff(chain_ids[-1]))
            mode, uid, gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
        os.chown(container.upper, uid, gid)
        os.chmod(container.upper, mode)

    def _revive_volatile(self, container: ContainerDir, *, same_boot: bool) -> None:
        """Let a volatile overlay be mounted again: the kernel refuses until its mark is removed.

        What it holds can be believed only if the machine did not crash since.
        """
        if not same_boot:
            trees.remove(container.upper)
            trees.remove(container.work)
            return
        trees.remove(container.work / "work" / "incompat")

    def _overlay(self, layers: Sequence[Path], container: ContainerDir, *, volatile: bool) -> Mount:
        own = [f"upperdir={container.upper}", f"workdir={container.work}", "index=off"]
        if volatile:
            own.append("volatile")
        options = ["lowerdir=" + ":".join(map(str, layers)), *own]
        if len(",".join(options)) > _OPTIONS_MAX_BYTES:
            options[0] = "lowerdir=" + ":".join(str(self._link(path)) for path in layers)
        if len(",".join(options)) > _OPTIONS_MAX_BYTES:
            raise NotSupported(
                f"image with {len(layers)} layers does not fit into one mount below {self._root.path}",
                hint="use a root directory with a shorter path",
            )
        return Mount(destination="/", type="overlay", source="overlay", options=tuple(options))

    def _link(self, diff: Path) -> Path:
        """Return a short name for a layer: ROOT/l/<start of its chain id>, a symbolic link."""
        directory = self._root.path / "l"
        directory.mkdir(mode=0o700, exist_ok=True)
        name = diff.parent.name
        target = os.path.relpath(diff, directory)
        for chars in range(_LINK_CHARS, len(name) + 1):
            link = directory / name[:chars]
            try:
                os.symlink(target, link)
            except FileExistsError:
                if os.readlink(link) != target:
                    continue
            return link
        raise EngineError(f"no short name for layer {name}")

    def _diff(self, chain_id: str) -> Path:
        return self._root.layer(chain_id.removeprefix("sha256:")) / "diff"


def _record_path(container: ContainerDir) -> Path:
    return container.path / "snapshot.json"


def _read_record(container: ContainerDir) -> _Snapshot | None:
    try:
        return jsonio.read(_record_path(container), _Snapshot, noun="snapshot record")
    except FileNotFoundError:
        return None


def _write_record(container: ContainerDir, record: _Snapshot) -> None:
    """Write the record whole or not at all; it becomes durable with the container's own files."""
    temporary = container.path / f".snapshot-{secrets.token_hex(4)}"
    temporary.write_bytes(jsonio.encode(record))
    os.replace(temporary, _record_path(container))
