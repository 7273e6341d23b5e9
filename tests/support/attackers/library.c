/* A library that an image offers under the name of one of the host's: it tells that it was loaded. */
#include <fcntl.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void)
{
	close(open("/tmp/marker", O_WRONLY | O_CREAT, 0666));
}
