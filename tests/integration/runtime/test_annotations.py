"""Annotations are for who reads the state: whatever other runtimes do for them, here they change nothing."""

from pathlib import Path

import pytest

from tests.support.ocilab import OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def commanding(canary: Path) -> dict[str, str]:
    """Return what crun, CRI-O, kata and systemd's drivers act upon.

    CVE-2024-3154, CVE-2023-6476, CVE-2025-24965: an image or a pod set what only the host may.
    """
    return {
        "run.oci.handler": "krun",
        "run.oci.hooks.stdout": str(canary),
        "run.oci.hooks.stderr": str(canary),
        "run.oci.keep_original_groups": "1",
        "run.oci.pidfd_receiver": str(canary),
        "run.oci.seccomp.receiver": str(canary),
        "run.oci.seccomp_bpf_data": "AAAA",
        "run.oci.delegate-cgroup": "../..",
        "run.oci.systemd.subgroup": "../..",
        "run.oci.mount_context_type": "rootcontext",
        "org.systemd.property.ExecStartPre": f"[['/bin/touch', ['/bin/touch', '{canary}'], false]]",
        "io.kubernetes.cri-o.Devices": "/dev/mem:/dev/mem:rwm",
        "io.kubernetes.cri-o.ShmSize": "1Gi",
        "io.katacontainers.config.hypervisor.path": "/bin/sh",
        "cdi.k8s.io/vendor": "vendor.com/device=all",
        "module.wasm.image/variant": "compat",
        "nri.io/annotation": str(canary),
    }


def test_annotations_change_nothing_of_a_container(oci: OciLab, tmp_path: Path) -> None:
    script = (
        "cat /proc/self/status | grep -E 'Cap|Groups|Uid|NoNewPrivs|Seccomp:'; ls /dev; cat /proc/self/mounts"
    )
    plain = oci.run("sh", "-c", script)

    annotated = oci.run("sh", "-c", script, annotations=commanding(tmp_path / "canary"))

    assert plain.returncode == annotated.returncode == 0
    assert plain.stdout == annotated.stdout
    assert annotated.stderr == ""
    assert not (tmp_path / "canary").exists()
    assert oci.create("true", annotations=commanding(tmp_path / "canary")).returncode == 0
    assert oci.state()["annotations"] == commanding(tmp_path / "canary")
