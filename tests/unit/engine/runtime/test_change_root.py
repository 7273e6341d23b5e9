from engine.runtime.changeroot import kernel_views

MOUNTINFO = r"""22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 23 0:22 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw
25 22 0:23 / /a\040b\134c rw master:2 propagate_from:1 - sysfs sysfs rw
26 25 0:21 / /a\040b\134c/proc rw - proc proc rw
"""


def test_what_the_kernel_shows_of_itself_is_listed_deepest_first() -> None:
    assert kernel_views(MOUNTINFO) == ["/a b\\c/proc", "/a b\\c", "/proc"]
