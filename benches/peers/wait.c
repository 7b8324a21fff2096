/* The least that a CGI can be that waits: for a change in the directory of the
   events, by dnotify, which has no limit per user; then it prints. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char answer[] =
    "Status: 200 OK\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
    "Content-Length: 5\r\n"
    "\r\n"
    "hello";

int main(void)
{
    const char *store = getenv("NOVCOMET_STORE");
    sigset_t set;
    int directory;

    if (!store)
        return 1;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    directory = open(store + strlen("file://"), O_RDONLY | O_DIRECTORY);
    fcntl(directory, F_SETSIG, SIGRTMIN);
    if (fcntl(directory, F_NOTIFY, DN_ATTRIB | DN_MODIFY) < 0)
        return 1;
    sigwaitinfo(&set, NULL);
    return write(1, answer, sizeof answer - 1) != sizeof answer - 1;
}
