"""Numbers of the system calls of the other ABIs that a 64-bit kernel may offer: x86, x32 and arm.

One token a call, `name:x86:arm`, `-` where the ABI has none. From 424 on numbers are the same everywhere,
and taken from the native table. x32 has its own numbers for calls that pass pointers inside of memory, and
the native ones with a bit set for all others.

Source: Linux 6.1, arch/x86/entry/syscalls/syscall_{32,64}.tbl and arch/arm/tools/syscall.tbl (EABI).
"""

import functools

from engine.kernel.syscalls import numbers

X32_BIT = 0x40000000
_UNIFIED = 424

_TABLE = """
restart_syscall:0:0 exit:1:1 fork:2:2 read:3:3 write:4:4 open:5:5 close:6:6 waitpid:7:- creat:8:8
link:9:9 unlink:10:10 execve:11:11 chdir:12:12 time:13:- mknod:14:14 chmod:15:15 lchown:16:16 break:17:-
oldstat:18:- lseek:19:19 getpid:20:20 mount:21:21 umount:22:- setuid:23:23 getuid:24:24 stime:25:-
ptrace:26:26 alarm:27:- oldfstat:28:- pause:29:29 utime:30:- stty:31:- gtty:32:- access:33:33 nice:34:34
ftime:35:- sync:36:36 kill:37:37 rename:38:38 mkdir:39:39 rmdir:40:40 dup:41:41 pipe:42:42 times:43:43
prof:44:- brk:45:45 setgid:46:46 getgid:47:47 signal:48:- geteuid:49:49 getegid:50:50 acct:51:51
umount2:52:52 lock:53:- ioctl:54:54 fcntl:55:55 mpx:56:- setpgid:57:57 ulimit:58:- oldolduname:59:-
umask:60:60 chroot:61:61 ustat:62:62 dup2:63:63 getppid:64:64 getpgrp:65:65 setsid:66:66 sigaction:67:67
sgetmask:68:- ssetmask:69:- setreuid:70:70 setregid:71:71 sigsuspend:72:72 sigpending:73:73
sethostname:74:74 setrlimit:75:75 getrlimit:76:- getrusage:77:77 gettimeofday:78:78 settimeofday:79:79
getgroups:80:80 setgroups:81:81 select:82:- symlink:83:83 oldlstat:84:- readlink:85:85 uselib:86:86
swapon:87:87 reboot:88:88 readdir:89:- mmap:90:- munmap:91:91 truncate:92:92 ftruncate:93:93
fchmod:94:94 fchown:95:95 getpriority:96:96 setpriority:97:97 profil:98:- statfs:99:99 fstatfs:100:100
ioperm:101:- socketcall:102:- syslog:103:103 setitimer:104:104 getitimer:105:105 stat:106:106
lstat:107:107 fstat:108:108 olduname:109:- iopl:110:- vhangup:111:111 idle:112:- vm86old:113:-
wait4:114:114 swapoff:115:115 sysinfo:116:116 ipc:117:- fsync:118:118 sigreturn:119:119 clone:120:120
setdomainname:121:121 uname:122:122 modify_ldt:123:- adjtimex:124:124 mprotect:125:125
sigprocmask:126:126 create_module:127:- init_module:128:128 delete_module:129:129 get_kernel_syms:130:-
quotactl:131:131 getpgid:132:132 fchdir:133:133 bdflush:134:134 sysfs:135:135 personality:136:136
afs_syscall:137:- setfsuid:138:138 setfsgid:139:139 _llseek:140:140 getdents:141:141 _newselect:142:142
flock:143:143 msync:144:144 readv:145:145 writev:146:146 getsid:147:147 fdatasync:148:148
_sysctl:149:149 mlock:150:150 munlock:151:151 mlockall:152:152 munlockall:153:153 sched_setparam:154:154
sched_getparam:155:155 sched_setscheduler:156:156 sched_getscheduler:157:157 sched_yield:158:158
sched_get_priority_max:159:159 sched_get_priority_min:160:160 sched_rr_get_interval:161:161
nanosleep:162:162 mremap:163:163 setresuid:164:164 getresuid:165:165 vm86:166:- query_module:167:-
poll:168:168 nfsservctl:169:169 setresgid:170:170 getresgid:171:171 prctl:172:172 rt_sigreturn:173:173
rt_sigaction:174:174 rt_sigprocmask:175:175 rt_sigpending:176:176 rt_sigtimedwait:177:177
rt_sigqueueinfo:178:178 rt_sigsuspend:179:179 pread64:180:180 pwrite64:181:181 chown:182:182
getcwd:183:183 capget:184:184 capset:185:185 sigaltstack:186:186 sendfile:187:187 getpmsg:188:-
putpmsg:189:- vfork:190:190 ugetrlimit:191:191 mmap2:192:192 truncate64:193:193 ftruncate64:194:194
stat64:195:195 lstat64:196:196 fstat64:197:197 lchown32:198:198 getuid32:199:199 getgid32:200:200
geteuid32:201:201 getegid32:202:202 setreuid32:203:203 setregid32:204:204 getgroups32:205:205
setgroups32:206:206 fchown32:207:207 setresuid32:208:208 getresuid32:209:209 setresgid32:210:210
getresgid32:211:211 chown32:212:212 setuid32:213:213 setgid32:214:214 setfsuid32:215:215
setfsgid32:216:216 pivot_root:217:218 mincore:218:219 madvise:219:220 getdents64:220:217 fcntl64:221:221
gettid:224:224 readahead:225:225 setxattr:226:226 lsetxattr:227:227 fsetxattr:228:228 getxattr:229:229
lgetxattr:230:230 fgetxattr:231:231 listxattr:232:232 llistxattr:233:233 flistxattr:234:234
removexattr:235:235 lremovexattr:236:236 fremovexattr:237:237 tkill:238:238 sendfile64:239:239
futex:240:240 sched_setaffinity:241:241 sched_getaffinity:242:242 set_thread_area:243:-
get_thread_area:244:- io_setup:245:243 io_destroy:246:244 io_getevents:247:245 io_submit:248:246
io_cancel:249:247 fadvise64:250:- exit_group:252:248 lookup_dcookie:253:249 epoll_create:254:250
epoll_ctl:255:251 epoll_wait:256:252 remap_file_pages:257:253 set_tid_address:258:256
timer_create:259:257 timer_settime:260:258 timer_gettime:261:259 timer_getoverrun:262:260
timer_delete:263:261 clock_settime:264:262 clock_gettime:265:263 clock_getres:266:264
clock_nanosleep:267:265 statfs64:268:266 fstatfs64:269:267 tgkill:270:268 utimes:271:269
fadvise64_64:272:- vserver:273:313 mbind:274:319 get_mempolicy:275:320 set_mempolicy:276:321
mq_open:277:274 mq_unlink:278:275 mq_timedsend:279:276 mq_timedreceive:280:277 mq_notify:281:278
mq_getsetattr:282:279 kexec_load:283:347 waitid:284:280 add_key:286:309 request_key:287:310
keyctl:288:311 ioprio_set:289:314 ioprio_get:290:315 inotify_init:291:316 inotify_add_watch:292:317
inotify_rm_watch:293:318 migrate_pages:294:400 openat:295:322 mkdirat:296:323 mknodat:297:324
fchownat:298:325 futimesat:299:326 fstatat64:300:327 unlinkat:301:328 renameat:302:329 linkat:303:330
symlinkat:304:331 readlinkat:305:332 fchmodat:306:333 faccessat:307:334 pselect6:308:335 ppoll:309:336
unshare:310:337 set_robust_list:311:338 get_robust_list:312:339 splice:313:340 sync_file_range:314:-
tee:315:342 vmsplice:316:343 move_pages:317:344 getcpu:318:345 epoll_pwait:319:346 utimensat:320:348
signalfd:321:349 timerfd_create:322:350 eventfd:323:351 fallocate:324:352 timerfd_settime:325:353
timerfd_gettime:326:354 signalfd4:327:355 eventfd2:328:356 epoll_create1:329:357 dup3:330:358
pipe2:331:359 inotify_init1:332:360 preadv:333:361 pwritev:334:362 rt_tgsigqueueinfo:335:363
perf_event_open:336:364 recvmmsg:337:365 fanotify_init:338:367 fanotify_mark:339:368 prlimit64:340:369
name_to_handle_at:341:370 open_by_handle_at:342:371 clock_adjtime:343:372 syncfs:344:373
sendmmsg:345:374 setns:346:375 process_vm_readv:347:376 process_vm_writev:348:377 kcmp:349:378
finit_module:350:379 sched_setattr:351:380 sched_getattr:352:381 renameat2:353:382 seccomp:354:383
getrandom:355:384 memfd_create:356:385 bpf:357:386 execveat:358:387 socket:359:281 socketpair:360:288
bind:361:282 connect:362:283 listen:363:284 accept4:364:366 getsockopt:365:295 setsockopt:366:294
getsockname:367:286 getpeername:368:287 sendto:369:290 sendmsg:370:296 recvfrom:371:292 recvmsg:372:297
shutdown:373:293 userfaultfd:374:388 membarrier:375:389 mlock2:376:390 copy_file_range:377:391
preadv2:378:392 pwritev2:379:393 pkey_mprotect:380:394 pkey_alloc:381:395 pkey_free:382:396
statx:383:397 arch_prctl:384:- io_pgetevents:385:399 rseq:386:398 semget:393:299 semctl:394:300
shmget:395:307 shmctl:396:308 shmat:397:305 shmdt:398:306 msgget:399:303 msgsnd:400:301 msgrcv:401:302
msgctl:402:304 clock_gettime64:403:403 clock_settime64:404:404 clock_adjtime64:405:405
clock_getres_time64:406:406 clock_nanosleep_time64:407:407 timer_gettime64:408:408
timer_settime64:409:409 timerfd_gettime64:410:410 timerfd_settime64:411:411 utimensat_time64:412:412
pselect6_time64:413:413 ppoll_time64:414:414 io_pgetevents_time64:416:416 recvmmsg_time64:417:417
mq_timedsend_time64:418:418 mq_timedreceive_time64:419:419 semtimedop_time64:420:420
rt_sigtimedwait_time64:421:421 futex_time64:422:422 sched_rr_get_interval_time64:423:423
arm_fadvise64_64:-:270 pciconfig_iobase:-:271 pciconfig_read:-:272 pciconfig_write:-:273 accept:-:285
send:-:289 recv:-:291 semop:-:298 semtimedop:-:312 arm_sync_file_range:-:341 kexec_file_load:-:401
breakpoint:-:983041 cacheflush:-:983042 usr26:-:983043 usr32:-:983044 set_tls:-:983045 get_tls:-:983046
"""
_X32 = """
rt_sigaction:512 rt_sigreturn:513 ioctl:514 readv:515 writev:516 recvfrom:517 sendmsg:518 recvmsg:519
execve:520 ptrace:521 rt_sigpending:522 rt_sigtimedwait:523 rt_sigqueueinfo:524 sigaltstack:525
timer_create:526 mq_notify:527 kexec_load:528 waitid:529 set_robust_list:530 get_robust_list:531
vmsplice:532 move_pages:533 preadv:534 pwritev:535 rt_tgsigqueueinfo:536 recvmmsg:537 sendmmsg:538
process_vm_readv:539 process_vm_writev:540 setsockopt:541 getsockopt:542 io_setup:543 io_submit:544
execveat:545 preadv2:546 pwritev2:547
"""
_NOT_OF_X32 = (
    "uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area"
    " epoll_ctl_old epoll_wait_old vserver uretprobe uprobe"
)
_X32_LACKS = frozenset(_NOT_OF_X32.split())
_ARM_LACKS = frozenset({"memfd_secret", "map_shadow_stack"})


@functools.cache
def abi_numbers(abi: str) -> dict[str, int]:
    """Return the number of each system call of `abi`: x86, x32 or arm.

    Raises:
        ValueError: it is none of these.
    """
    native = numbers("x86_64")
    if abi == "x32":
        own = {name: int(number) for name, number in (token.split(":") for token in _X32.split())}
        kept = {name: number for name, number in native.items() if name not in _X32_LACKS}
        return {name: number | X32_BIT for name, number in (kept | own).items()}
    column = ("x86", "arm").index(abi) + 1
    rows = (token.split(":") for token in _TABLE.split())
    lacks = _ARM_LACKS if abi == "arm" else frozenset()
    unified = {name: number for name, number in native.items() if number >= _UNIFIED and name not in lacks}
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"} | unified


def _codes(text: str) -> dict[str, int]:
    return {name: int(code) for name, code in (token.split(":") for token in text.split())}


# Calls of x86 that are also reached through another one, whose first argument says which is meant.
SOCKETCALL = _codes(
    "socket:1 bind:2 connect:3 listen:4 accept:5 getsockname:6 getpeername:7 socketpair:8 send:9 recv:10"
    " sendto:11 recvfrom:12 shutdown:13 setsockopt:14 getsockopt:15 sendmsg:16 recvmsg:17 accept4:18"
    " recvmmsg:19 sendmmsg:20"
)
IPC = _codes(
    "semop:1 semget:2 semctl:3 semtimedop:4 msgsnd:11 msgrcv:12 msgget:13 msgctl:14 shmat:21 shmdt:22"
    " shmget:23 shmctl:24"
)
