"""Every system call of Linux, classified once: what the default filter of a container is drawn from.

Below, a line at the margin opens a group: its class (for `gated` with the capabilities, one of
which opens it), and why. The calls follow, with the kernel that had them first where that is
later than 2.6.12, the first of which there is a history. A test fails when the numbers of
`engine.kernel.syscalls`, or the headers of the machine's kernel, have a call that is not here.

Source: syscalls(2), capabilities(7); docker's documentation of its default profile.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_FIRST = "2.6.12"

# A reason may not contain ": ", a name no "@".
_TABLE = """
allowed: sockets that are open already; which can be made is decided at socket
    accept accept4@2.6.28 bind connect getpeername getsockname getsockopt listen recvfrom
    recvmmsg@2.6.33 recvmsg sendmmsg@3.0 sendmsg sendto setsockopt shutdown socketpair
allowed: files and descriptors, within the mounts of the container
    access chdir chmod chown close close_range@5.9 copy_file_range@4.5 creat dup dup2 dup3@2.6.27
    epoll_create epoll_create1@2.6.27 epoll_ctl epoll_pwait@2.6.19 epoll_pwait2@5.11 epoll_wait
    eventfd@2.6.22 eventfd2@2.6.27 faccessat@2.6.16 faccessat2@5.8 fadvise64 fallocate@2.6.23
    fanotify_mark@2.6.37 fchdir fchmod fchmodat@2.6.16 fchmodat2@6.6 fchown fchownat@2.6.16 fcntl
    fdatasync fgetxattr file_getattr@6.17 file_setattr@6.17 flistxattr flock fremovexattr fsetxattr
    fstat fstatfs fsync ftruncate getcwd getdents getdents64 getpid getppid gettid getxattr
    getxattrat@6.13 inotify_add_watch@2.6.13 inotify_init@2.6.13 inotify_init1@2.6.27
    inotify_rm_watch@2.6.13 io_cancel io_destroy io_getevents io_pgetevents@4.18 io_setup io_submit
    lchown lgetxattr link linkat@2.6.16 listxattr listxattrat@6.13 llistxattr lremovexattr lseek
    lsetxattr lstat mkdir mkdirat@2.6.16 mknod mknodat@2.6.16 name_to_handle_at@2.6.39 newfstatat@2.6.16
    open openat@2.6.16 openat2@5.6 pipe pipe2@2.6.27 poll ppoll@2.6.16 pread64 preadv@2.6.30 preadv2@4.6
    pselect6@2.6.16 pwrite64 pwritev@2.6.30 pwritev2@4.6 read readahead readlink readlinkat@2.6.16 readv
    removexattr removexattrat@6.13 rename renameat@2.6.16 renameat2@3.15 rmdir select sendfile setxattr
    setxattrat@6.13 splice@2.6.17 stat statfs statx@4.11 symlink symlinkat@2.6.16 sync
    sync_file_range@2.6.17 syncfs@2.6.39 tee@2.6.17 truncate unlink unlinkat@2.6.16 vmsplice@2.6.17
    write writev
allowed: time; setting the clock is checked by the kernel
    adjtimex alarm clock_adjtime@2.6.39 clock_getres clock_gettime clock_nanosleep futimesat@2.6.16
    getitimer gettimeofday mq_timedreceive mq_timedsend nanosleep rt_sigtimedwait semtimedop setitimer
    time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create@2.6.25
    timerfd_gettime@2.6.25 timerfd_settime@2.6.25 times utime utimensat@2.6.22 utimes
allowed: processes, threads and signals of the PID namespace
    arch_prctl execve execveat@3.19 exit exit_group fork futex futex_requeue@6.7 futex_wait@6.7
    futex_waitv@5.16 futex_wake@6.7 get_robust_list@2.6.17 get_thread_area getcpu@2.6.19 getpriority
    getrandom@3.17 getrlimit getrusage ioprio_get@2.6.13 ioprio_set@2.6.13 kill modify_ldt pause
    pidfd_open@5.3 pidfd_send_signal@5.1 prctl prlimit64@2.6.36 process_mrelease@5.15 ptrace
    restart_syscall rseq@4.18 rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_tgsigqueueinfo@2.6.31 sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr@3.14 sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr@3.14 sched_setparam sched_setscheduler sched_yield
    set_robust_list@2.6.17 set_thread_area set_tid_address setpriority setrlimit sigaltstack
    signalfd@2.6.22 signalfd4@2.6.27 sysinfo tgkill tkill umask uname vfork wait4 waitid
allowed: memory of the caller
    brk cachestat@6.5 madvise map_shadow_stack@6.6 membarrier@4.3 memfd_create@3.17 memfd_secret@5.14
    mincore mlock mlock2@4.4 mlockall mmap mprotect mremap mseal@6.10 msync munlock munlockall munmap
    pkey_alloc@4.9 pkey_free@4.9 pkey_mprotect@4.9 remap_file_pages
allowed: ids and capabilities: the kernel lets nobody gain any
    capget capset getegid geteuid getgid getgroups getpgid getpgrp getresgid getresuid getsid getuid
    setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid setsid setuid
allowed: a program may confine itself further
    landlock_add_rule@5.13 landlock_create_ruleset@5.13 landlock_restrict_self@5.13
    lsm_get_self_attr@6.8 lsm_list_modules@6.8 seccomp@3.17
allowed: System V and POSIX queues, semaphores and shared memory: of the IPC namespace
    mq_getsetattr mq_notify mq_open mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop shmat
    shmctl shmdt shmget
gated CAP_BPF CAP_SYS_ADMIN: programs for the kernel
    bpf@3.18
gated CAP_DAC_READ_SEARCH: a file by its handle: past every path and mount
    open_by_handle_at@2.6.39
gated CAP_PERFMON CAP_SYS_ADMIN: watches the whole machine
    perf_event_open@2.6.31
gated CAP_SYSLOG CAP_SYS_ADMIN: the log of the kernel
    syslog
gated CAP_SYS_ADMIN: mounts, namespaces, quotas and names of the machine
    fanotify_init@2.6.37 fsconfig@5.2 fsmount@5.2 fsopen@5.2 fspick@5.2 listmount@6.8 lookup_dcookie
    lsm_set_self_attr@6.8 mount mount_setattr@5.12 move_mount@5.2 open_tree@5.2 open_tree_attr@6.15
    pivot_root quotactl quotactl_fd@5.14 setdomainname sethostname setns@3.0 statmount@6.8 swapoff
    swapon umount2 unshare@2.6.16
gated CAP_SYS_BOOT: another kernel, or none
    kexec_file_load@3.17 kexec_load@2.6.13 reboot
gated CAP_SYS_CHROOT: another root
    chroot
gated CAP_SYS_MODULE: code for the kernel
    delete_module finit_module@3.8 init_module query_module
gated CAP_SYS_NICE: where memory of others lies
    get_mempolicy mbind migrate_pages@2.6.16 move_pages@2.6.18 set_mempolicy
    set_mempolicy_home_node@5.17
gated CAP_SYS_PACCT: accounting of the machine
    acct
gated CAP_SYS_PTRACE: memory and descriptors of other processes
    kcmp@3.5 pidfd_getfd@5.6 process_madvise@5.10 process_vm_readv@3.2 process_vm_writev@3.2
gated CAP_SYS_RAWIO: ports of the hardware
    ioperm iopl
gated CAP_SYS_TIME: the clock of the machine
    clock_settime settimeofday
gated CAP_SYS_TTY_CONFIG: terminals of others
    vhangup
refused: key rings are not namespaced: they are the host's
    add_key keyctl request_key
refused: passes the filter by: what it is asked to do is no system call
    io_uring_enter@5.1 io_uring_register@5.1 io_uring_setup@5.1
refused: lets a program stop the kernel in the middle of a copy: a help for exploits
    userfaultfd@4.3
refused: for the kernel's own trampolines; from elsewhere it kills the caller
    uprobe@6.18 uretprobe@6.11
refused: obsolete: replaced, and a way to old code
    _sysctl nfsservctl sysfs uselib ustat
refused: never there or removed; only the number is left
    afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg putpmsg security
    tuxcall vserver
conditional: the arguments decide: see the rules below
    clone clone3@5.3 ioctl personality socket
"""


class CallClass(enum.StrEnum):
    """What the default filter does with a call."""

    ALLOWED = "allowed"
    GATED = "gated"  # allowed to who holds a capability; the kernel checks most of them again
    REFUSED = "refused"
    CONDITIONAL = "conditional"


@dataclass(frozen=True, slots=True)
class Call:
    """One row of the table."""

    name: str
    call_class: CallClass
    since: str  # the kernel that had it first; 2.6.12 also stands for those before
    reason: str
    capabilities: frozenset[str]  # of a gated call: one of them is enough


def _rows(text: str) -> Iterator[Call]:
    kind, reason, capabilities = CallClass.REFUSED, "", frozenset[str]()
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            head, _, reason = line.partition(": ")
            word, *names = head.split()
            kind, capabilities = CallClass(word), frozenset(names)
            continue
        for token in line.split():
            name, _, since = token.partition("@")
            yield Call(name, kind, since or _FIRST, reason, capabilities)


CALLS: Mapping[str, Call] = {call.name: call for call in _rows(_TABLE)}


def names_of(kind: CallClass) -> frozenset[str]:
    """Return the calls of one class."""
    return frozenset(call.name for call in CALLS.values() if call.call_class is kind)
