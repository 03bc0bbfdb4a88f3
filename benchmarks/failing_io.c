/* Preloaded by crash_campaign.py: lets the N-th write, rename or fsync of this process fail.
 *
 * arm(n, stays) counts down; at 0 the call fails with "no space left", and with `stays` all later
 * ones do, as on a disk that stays full. arm(-1, 0) ends it. calls() is how many were counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1, stays_failed = 0, counted = 0;

void arm(long n, long stays) { left = n; stays_failed = stays; counted = 0; }
long calls(void) { return counted; }

static int fails(void) {
    if (left < 0) return 0;
    counted++;
    if (left > 0) { left--; return 0; }
    if (!stays_failed) left = -1;
    errno = ENOSPC;
    return 1;
}

#define NEXT(type, name, ...) \
    static type (*next)(__VA_ARGS__); \
    if (!next) next = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(ssize_t, write, int, const void *, size_t)
    return fd > 2 && fails() ? -1 : next(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    NEXT(ssize_t, pwrite, int, const void *, size_t, off_t)
    return fails() ? -1 : next(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t)
    return fails() ? -1 : next(fd, data, size, at);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    NEXT(size_t, fwrite, const void *, size_t, size_t, FILE *)
    return file != stdout && file != stderr && fails() ? 0 : next(data, size, count, file);
}
int fsync(int fd) { NEXT(int, fsync, int) return fails() ? -1 : next(fd); }
int fdatasync(int fd) { NEXT(int, fdatasync, int) return fails() ? -1 : next(fd); }
int ftruncate(int fd, off_t size) { NEXT(int, ftruncate, int, off_t) return fails() ? -1 : next(fd, size); }
int ftruncate64(int fd, off64_t size) { NEXT(int, ftruncate64, int, off64_t) return fails() ? -1 : next(fd, size); }
int rename(const char *from, const char *to) {
    NEXT(int, rename, const char *, const char *)
    return fails() ? -1 : next(from, to);
}
