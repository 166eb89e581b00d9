/* The floor: the same loop as bare.py, without an interpreter. */

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int count;
static pid_t *pids;
static int reports;
static struct sockaddr_un arena = {.sun_family = AF_UNIX};

static void work(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t report[3] = {getpid(), now.tv_sec * INT64_C(1000000000) + now.tv_nsec, -1};
    sendto(reports, report, sizeof report, 0, (struct sockaddr *)&arena, sizeof arena);
    sleep(10000);
}

static void spawn(int slot)
{
    pid_t pid = fork();
    if (pid < 0)
        _exit(1);
    if (pid == 0) {
        signal(SIGTERM, SIG_DFL);
        work();
        _exit(0);
    }
    pids[slot] = pid;
}

/* kill, waitpid and _exit are async-signal-safe: signal-safety(7). */
static void stop(int signum)
{
    (void)signum;
    for (int slot = 0; slot < count; slot++)
        if (pids[slot] > 0)
            kill(pids[slot], SIGTERM);
    for (int slot = 0; slot < count; slot++)
        if (pids[slot] > 0)
            waitpid(pids[slot], NULL, 0);
    _exit(0);
}

int main(int argc, char **argv)
{
    const char *address = getenv("BENCHMARK_ARENA");
    if (argc != 2 || address == NULL || strlen(address) >= sizeof arena.sun_path)
        return 2;
    strcpy(arena.sun_path, address);
    reports = socket(AF_UNIX, SOCK_DGRAM, 0);
    count = atoi(argv[1]);
    pids = calloc(count, sizeof *pids);
    signal(SIGTERM, stop);
    for (int slot = 0; slot < count; slot++)
        spawn(slot);
    for (;;) {
        pid_t pid = waitpid(-1, NULL, 0);
        if (pid < 0)
            continue;
        for (int slot = 0; slot < count; slot++)
            if (pids[slot] == pid) {
                pids[slot] = 0;
                spawn(slot);
                break;
            }
    }
}
