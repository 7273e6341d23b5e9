"""What this runtime can do, as it tells callers; each list is the one that the plan itself decides by.

Source: OCI runtime-spec 1.2.0, features.md and features-linux.md.
"""

from collections.abc import Callable

from engine.kernel import capabilities
from engine.kernel.seccomp import takes_flags
from engine.kernel.syscalls import MACHINE
from engine.runtime import hooks, options, plan, seccomp
from engine.spec.runtime import OCI_VERSION


def features(kernel_takes: Callable[[int], bool] = takes_flags) -> dict[str, object]:
    """Return the document; `kernel_takes` tells whether seccomp(2) knows some flags."""
    return {
        "ociVersionMin": plan.OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(hooks.KINDS),
        "mountOptions": options.known_words(),
        "linux": {
            "namespaces": sorted(plan.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": MACHINE in seccomp.ARCHITECTURES,
                "actions": seccomp.actions(),
                "operators": list(seccomp.OPERATORS),
                "archs": seccomp.architectures(),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(
                    name for name in seccomp.FLAGS if kernel_takes(seccomp.flags_for_kernel(name))
                ),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "potentiallyUnsafeConfigAnnotations": [],  # none is acted on
    }
