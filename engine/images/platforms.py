"""Which manifest of an index this machine can run."""

import os
from collections.abc import Sequence

from engine.spec.distribution import Descriptor, Platform

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", None),
    "ppc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "riscv64": ("riscv64", None),
}
# What is meant where an index names no variant.
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def host_platform() -> Platform:
    """Return the platform of this kernel."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, None))
    return Platform(os="linux", architecture=architecture, variant=variant)


def choose(descriptors: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """Return the first manifest for `wanted`; one that runs everywhere only if there is no exact one.

    A 64-bit ARM runs v8 images whatever the variant's minor number; ARM runs
    older variants. Manifests for ``unknown/unknown`` are attestations.
    """
    fitting = [item for item in descriptors if item.platform and fits(item.platform, wanted)]
    return max(fitting, key=lambda item: _rank(item.platform, wanted), default=None)


def fits(platform: Platform, wanted: Platform) -> bool:
    """Tell whether what is for `platform` runs on `wanted`."""
    if (platform.os, platform.architecture) != (wanted.os, wanted.architecture):
        return False
    return _variant(platform) <= _variant(wanted)


def _rank(platform: Platform | None, wanted: Platform) -> tuple[bool, str]:
    assert platform is not None  # noqa: S101 (`choose` keeps only those that have one)
    return (_variant(platform) == _variant(wanted), _variant(platform))


def _variant(platform: Platform) -> str:
    return platform.variant or _DEFAULT_VARIANTS.get(platform.architecture, "")
