"""The system calls that a container may make by default.

Every call that the runtime's tables know is in exactly one class below; a
test fails when a table grows and this one does not. Calls that neither knows
answer ENOSYS, so that programs fall back to older ones; refused calls answer
EPERM. What is unlike docker's profile is stricter: sockets by a list of
families (no AF_ALG, no AF_VSOCK), no io_uring, no 32-bit calls, no TIOCSTI.

Source: seccomp(2), capabilities(7); docker's documentation of its default profile.
"""

import errno
from collections.abc import Collection

from engine.spec.runtime import Seccomp, SeccompArg, SeccompRule


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _names(
    "accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod "
    "chown clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect "
    "copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait "
    "epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 "
    "fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl "
    "fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat "
    "fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat "
    "get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid "
    "getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid "
    "getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr "
    "getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy "
    "io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule "
    "landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listxattr "
    "listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lstat "
    "madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod "
    "mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open "
    "mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock "
    "munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open "
    "pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv "
    "preadv2 prlimit64 process_mrelease pselect6 ptrace pwrite64 pwritev pwritev2 read readahead "
    "readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat "
    "rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask "
    "rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo "
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
    "sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam "
    "sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg "
    "sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid "
    "setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid "
    "setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd "
    "signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs "
    "sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime "
    "timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat "
    "utime utimensat utimes vfork vmsplice wait4 waitid write writev"
)

# Allowed to who holds the capability; the kernel checks most of them again.
GATED: dict[str, frozenset[str]] = {
    "CAP_BPF": _names("bpf"),
    "CAP_DAC_READ_SEARCH": _names("open_by_handle_at"),
    "CAP_PERFMON": _names("perf_event_open"),
    "CAP_SYS_ADMIN": _names(
        "bpf fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie lsm_set_self_attr "
        "mount mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl "
        "quotactl_fd setdomainname sethostname setns statmount swapoff swapon syslog umount2 unshare"
    ),
    "CAP_SYS_BOOT": _names("kexec_file_load kexec_load reboot"),
    "CAP_SYS_CHROOT": _names("chroot"),
    "CAP_SYS_MODULE": _names("delete_module finit_module init_module query_module"),
    "CAP_SYS_NICE": _names(
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node"
    ),
    "CAP_SYS_PACCT": _names("acct"),
    "CAP_SYS_PTRACE": _names("kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    "CAP_SYS_RAWIO": _names("ioperm iopl"),
    "CAP_SYS_TIME": _names("clock_settime settimeofday"),
    "CAP_SYS_TTY_CONFIG": _names("vhangup"),
    "CAP_SYSLOG": _names("syslog"),
}

# Never: key rings are not namespaced, io_uring passes seccomp by, the rest is old or of no use inside.
REFUSED = _names(
    "_sysctl add_key afs_syscall clone3 create_module epoll_ctl_old epoll_wait_old get_kernel_syms "
    "getpmsg io_uring_enter io_uring_register io_uring_setup keyctl nfsservctl putpmsg request_key "
    "security sysfs tuxcall uprobe uretprobe uselib userfaultfd ustat vserver"
)

CONDITIONAL = frozenset(("clone", "personality", "socket"))

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_SOCKET_FAMILIES = (1, 2, 10, 16, 17)  # UNIX, INET, INET6, NETLINK, PACKET (the kernel asks for NET_RAW)
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX push characters into a terminal
_LOW_WORD = 0xFFFFFFFF
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"


def default_profile(capabilities: Collection[str], machine: str) -> Seccomp:
    """Return the filter for a container with `capabilities` on a `machine` (as uname calls it)."""
    held = set(capabilities)
    allowed = set(ALLOWED)
    denied = set(REFUSED)
    for capability, names in GATED.items():
        if capability in held:
            allowed |= names
        else:
            denied |= names
    denied -= allowed
    rules = [_terminal_rule(request) for request in _TERMINAL_INPUT]
    rules += [_equal("personality", value) for value in _PERSONALITIES]
    rules += [_equal("socket", family) for family in _SOCKET_FAMILIES]
    if "CAP_SYS_ADMIN" in held:
        allowed |= {"clone", "clone3"}
        denied.discard("clone3")
    else:
        denied.discard("clone3")
        rules.append(SeccompRule(names=("clone3",), action=_ERRNO, errno_ret=errno.ENOSYS))
        rules.append(
            SeccompRule(
                names=("clone",),
                action=_ALLOW,
                args=(SeccompArg(index=0, value=_NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ"),),
            )
        )
        denied.add("clone")
    denied |= {"personality", "socket"}
    rules.append(SeccompRule(names=tuple(sorted(allowed)), action=_ALLOW))
    rules.append(SeccompRule(names=tuple(sorted(denied)), action=_ERRNO, errno_ret=errno.EPERM))
    return Seccomp(
        default_action=_ERRNO,
        default_errno_ret=errno.ENOSYS,
        architectures=(_ARCHITECTURES[machine],) if machine in _ARCHITECTURES else (),
        syscalls=tuple(rules),
    )


def _equal(name: str, value: int) -> SeccompRule:
    return SeccompRule(names=(name,), action=_ALLOW, args=(SeccompArg(index=0, value=value),))


def _terminal_rule(request: int) -> SeccompRule:
    """Refuse one ioctl; the kernel looks at the low word of the request only, so the rule does too."""
    return SeccompRule(
        names=("ioctl",),
        action=_ERRNO,
        errno_ret=errno.EPERM,
        args=(SeccompArg(index=1, value=_LOW_WORD, value_two=request, op="SCMP_CMP_MASKED_EQ"),),
    )
