/* Makes one call that changes files fail, or be the last one: gcc -shared -fPIC -o shim.so shim.c
 *
 * Loaded by LD_PRELOAD. After fault_arm(folder, at, what), calls that change files below `folder`
 * are counted, and at the `at`-th `what` happens:
 *   kill     the process is killed before the call
 *   torn     of a write, half arrives; then the process is killed
 *   enospc   this and all later calls that need room fail: no space left
 *   eio      this and all later fsyncs fail: input/output error
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, TORN, ENOSPC_FROM, EIO_FROM };
static char folder[4096];
static long limit, seen;
static int what = NOTHING, owner;

void fault_arm(const char *dir, long at, const char *name) {
    snprintf(folder, sizeof folder, "%s", dir);
    limit = at;
    seen = 0;
    owner = getpid();
    what = !strcmp(name, "kill") ? KILL : !strcmp(name, "torn") ? TORN
         : !strcmp(name, "enospc") ? ENOSPC_FROM : !strcmp(name, "eio") ? EIO_FROM : NOTHING;
}

long fault_count(void) { return seen; }

static int inside(const char *path) {
    return folder[0] && path && !strncmp(path, folder, strlen(folder));
}

static int fd_inside(int fd) {
    char link[64], path[4096];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* 0: go ahead; otherwise the error to fail with. `room`: needs space; `flush`: is an fsync. */
static int decide(int room, int flush) {
    if (owner != getpid()) return 0; /* loading processes are not counted */
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (what == NOTHING || limit <= 0 || now < limit) return 0;
    if (what == KILL || (what == TORN && !room)) kill(getpid(), SIGKILL);
    if (what == ENOSPC_FROM && room) return ENOSPC;
    if (what == EIO_FROM && flush) return EIO;
    return 0;
}

static int torn_now(void) { return what == TORN && limit > 0 && seen >= limit && owner == getpid(); }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define FAIL(error) do { errno = (error); return -1; } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (folder[0] && fd > 2 && fd_inside(fd)) {
        int error = decide(1, 0);
        if (error) FAIL(error);
        if (torn_now()) {
            real(fd, bytes, count / 2);
            kill(getpid(), SIGKILL);
        }
    }
    return real(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (folder[0] && fd_inside(fd)) {
        int error = decide(1, 0);
        if (error) FAIL(error);
    }
    return real(fd, parts, count);
}

#define FLUSH(function) \
    int function(int fd) { \
        REAL(int, #function, int); \
        if (folder[0] && fd_inside(fd)) { \
            int error = decide(0, 1); \
            if (error) FAIL(error); \
        } \
        return real(fd); \
    }
FLUSH(fsync)
FLUSH(fdatasync)

#define OPEN(function) \
    int function(const char *path, int flags, ...) { \
        REAL(int, #function, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        int mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, int) : 0; \
        va_end(more); \
        if ((flags & (O_CREAT | O_TRUNC)) && inside(path)) { \
            int error = decide(1, 0); \
            if (error) FAIL(error); \
        } \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define PATH_CALL(type, name, room, parameters, arguments) \
    type name parameters { \
        static type (*real) parameters; \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (inside(path)) { \
            int error = decide(room, 0); \
            if (error) FAIL(error); \
        } \
        return real arguments; \
    }
PATH_CALL(int, mkdir, 1, (const char *path, mode_t mode), (path, mode))
PATH_CALL(int, rename, 0, (const char *path, const char *to), (path, to))
PATH_CALL(int, unlink, 0, (const char *path), (path))
PATH_CALL(int, rmdir, 0, (const char *path), (path))
PATH_CALL(int, truncate, 0, (const char *path, off_t size), (path, size))
PATH_CALL(int, truncate64, 0, (const char *path, off64_t size), (path, size))

int unlinkat(int dir, const char *name, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    if (folder[0] && (name[0] == '/' ? inside(name) : fd_inside(dir))) decide(0, 0);
    return real(dir, name, flags);
}
