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
    if matched is not None and any(name for name in names if name.tag and name != matched):
        return Removal((matched,), delete=False)
    if matched is not None:
        return _last_name(image, matched, names, uses, force=force)
    repositories = {name.name for name in names}
    if len(repositories) > 1 and not force:
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} (must be forced) - "
            "image is referenced in multiple repositories"
        )
    _check_uses(image, uses, force=force)
    return Removal(tuple(names), delete=True)


def _last_name(
    image: Image, matched: Reference, names: Sequence[Reference], uses: Sequence[ImageUse], *, force: bool
) -> Removal:
    if uses and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{matched.familiar}" (must force) - '
            f"container {short(uses[0].container_id)} is using its referenced image {short(image.id)}"
        )
    if uses:
        return Removal((matched,), delete=False)  # the containers keep the image, without a name
    others = {name.name for name in names if name != matched} - {matched.name}
    if others:
        return Removal((matched,), delete=False)
    return Removal(tuple(names), delete=True)


def _check_uses(image: Image, uses: Sequence[ImageUse], *, force: bool) -> None:
    running = next((use for use in uses if use.running), None)
    if running is not None:
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} (cannot be forced) - "
            f"image is being used by running container {short(running.container_id)}"
        )
    if uses and not force:
        raise Conflict(
            f"conflict: unable to delete {short(image.id)} (must be forced) - "
            f"image is being used by stopped container {short(uses[0].container_id)}"
        )
