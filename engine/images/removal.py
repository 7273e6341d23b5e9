"""Which of an image's names, and whether the image itself, a removal takes; docker's rules, pure.

Source: docker's behaviour (moby 28, `DELETE /images/{name}`); the texts are its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.errors import Conflict
from engine.base.ids import short
from engine.images.model import Image, ImageUse
from engine.spec.reference import Reference


@dataclass(frozen=True, slots=True)
class Removal:
    """What to do."""

    untag: tuple[Reference, ...]
    delete: bool


def plan(
    image: Image,
    matched: Reference | None,
    names: Sequence[Reference],
    uses: Sequence[ImageUse],
    *,
    force: bool,
) -> Removal:
    """Return what removing `matched` (None: the image by its id) of an image with `names` means.

    Raises:
        Conflict: a container, or a name that was not given, stands against it.
    """
    if matched is not None:
        return _by_name(image, matched, names, uses, force=force)
    return _by_id(image, names, uses, force=force)


def _by_name(
    image: Image, matched: Reference, names: Sequence[Reference], uses: Sequence[ImageUse], *, force: bool
) -> Removal:
    if uses and not force and _is_single(names):
        raise Conflict(
            f'conflict: unable to remove repository reference "{matched.familiar}" (must force) - '
            f"container {short(uses[0].container_id)} is using its referenced image {short(image.id)}"
        )
    untag = [matched]
    left = [name for name in names if name != matched]
    if matched.tag and not any(name.tag and name.name == matched.name for name in left):
        # The digests of a repository go with its last tag.
        untag += [name for name in left if name.name == matched.name]
        left = [name for name in left if name.name != matched.name]
    return Removal(tuple(untag), delete=not left and not uses)  # the containers keep it, without a name


def _by_id(image: Image, names: Sequence[Reference], uses: Sequence[ImageUse], *, force: bool) -> Removal:
    running = next((use for use in uses if use.running), None)
    if running is not None:
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} (cannot be forced) - "
            f"image is being used by running container {short(running.container_id)}"
        )
    if not force and not _is_single(names):
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} (must be forced) - "
            "image is referenced in multiple repositories"
        )
    if uses and (not force or not names):
        # Docker forces this too, which takes a container that was never started its root.
        force_word = "cannot" if force else "must"
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} ({force_word} be forced) - "
            f"image is being used by stopped container {short(uses[0].container_id)}"
        )
    return Removal(tuple(names), delete=not uses)


def _is_single(names: Sequence[Reference]) -> bool:
    """Tell whether the names are at most one tag and digests of one repository."""
    return sum(bool(name.tag) for name in names) <= 1 and len({name.name for name in names}) <= 1
