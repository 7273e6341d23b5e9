/* What a hostile container would run.
 *
 *   swap DIRECTORY NAME...   exchange each NAME with NAME.link, for ever
 *   hold FD                  wait until the file of FD can be written, and overwrite it; or tell why it never can
 *   compat                   make a system call by the ways of 32-bit and x32 programs
 *   terminal                 put characters into the terminal that it does not have, by each way there is
 *   scan                     look for what processes that come in have of the outside, for ever; /found tells
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void tell(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (write(fd, text, strlen(text)) < 0)
		_exit(3);
	close(fd);
}

static void swap(char **names)
{
	char link[256];

	puts("ready");
	fflush(stdout);
	for (;;)
		for (char **name = names; *name; name++) {
			snprintf(link, sizeof link, "%s.link", *name);
			syscall(SYS_renameat2, AT_FDCWD, *name, AT_FDCWD, link, 2); /* RENAME_EXCHANGE */
		}
}

static int hold(const char *number)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%s", number);
	for (;;) {
		int fd = open(path, O_WRONLY);
		if (fd >= 0) {
			const char *text = "#!/overwritten\n";
			tell("/fate", pwrite(fd, text, strlen(text), 0) > 0 ? "overwritten\n" : "not written\n");
			return 0;
		}
		if (errno != ETXTBSY) {
			tell("/fate", strerrorname_np(errno));
			tell("/fate", "\n");
			return 0;
		}
	}
}

/* Tell when `name` of a process leads to what is not at the same place in here. */
static void follow(const char *directory, const char *name, const char *what)
{
	char path[600], text[4096];
	struct stat there, here;

	snprintf(path, sizeof path, "%s/%s", directory, name);
	ssize_t size = readlink(path, text, sizeof text - 1);
	if (size <= 0)
		return;
	text[size] = 0;
	if (text[0] == '(') /* "(unreachable)/..." */
		tell("/found", what);
	else if (text[0] == '/' && stat(path, &there) == 0 &&
		 (stat(text, &here) < 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino))
		tell("/found", what);
}

static void look(const char *pid)
{
	char path[300], text[4096];
	DIR *fds;

	snprintf(path, sizeof path, "/proc/%s", pid);
	follow(path, "root", "root\n");
	follow(path, "cwd", "cwd\n");
	follow(path, "exe", "exe\n");
	snprintf(path, sizeof path, "/proc/%s/exe", pid);
	int fd = open(path, O_WRONLY); /* of who runs from it this is busy at best */
	if (fd >= 0) {
		tell("/found", "writable exe\n");
		close(fd);
	}
	snprintf(path, sizeof path, "/proc/%s/environ", pid);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		ssize_t size = read(fd, text, sizeof text);
		if (size > 0 && memmem(text, size, "OUTSIDE=", 8))
			tell("/found", "environ\n");
		close(fd);
	}
	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	fds = opendir(path);
	for (struct dirent *entry; fds && (entry = readdir(fds));)
		if (atoi(entry->d_name) > 2)
			follow(path, entry->d_name, "fd\n");
	if (fds)
		closedir(fds);
}

static void scan(void)
{
	pid_t self = getpid();

	puts("ready");
	fflush(stdout);
	for (;;) {
		DIR *proc = opendir("/proc");
		for (struct dirent *entry; (entry = readdir(proc));)
			if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != self)
				look(entry->d_name);
		closedir(proc);
	}
}

static int terminal(void)
{
	unsigned long requests[] = { TIOCGWINSZ, TIOCSTI, TIOCLINUX, 1UL << 32 | TIOCSTI, 1UL << 63 | TIOCLINUX };

	for (unsigned at = 0; at < sizeof requests / sizeof *requests; at++)
		printf("%s\n", syscall(SYS_ioctl, 0, requests[at], "x") < 0 ? strerrorname_np(errno) : "done");
	return 0;
}

static int compat(void)
{
#ifdef __x86_64__
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory"); /* getpid */
	printf("%s\n", result < 0 ? strerrorname_np(-result) : "done");
	printf("%s\n", syscall(0x40000000 | SYS_getpid) < 0 ? strerrorname_np(errno) : "done");
#endif
	return 0;
}

int main(int count, char **words)
{
	if (count > 3 && !strcmp(words[1], "swap") && chdir(words[2]) == 0)
		swap(words + 3);
	if (count == 3 && !strcmp(words[1], "hold"))
		return hold(words[2]);
	if (count == 2 && !strcmp(words[1], "scan"))
		scan();
	if (count == 2 && !strcmp(words[1], "terminal"))
		return terminal();
	if (count == 2 && !strcmp(words[1], "compat"))
		return compat();
	return 2;
}
