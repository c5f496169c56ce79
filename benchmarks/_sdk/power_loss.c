/* Logs what a process does to the files below a folder, so that a loss of power can be played afterwards.
 *
 *     LD_PRELOAD=power_loss.so POWER_FOLDER=/the/folder POWER_LOG=/a/file/elsewhere program
 *
 * Each call that changes a file, a folder's entries or what of them is on the disk for certain is carried out,
 * and then appended to the log, one record a call, both under one lock: so the log is a history, in order. A
 * process that is killed between the two has not seen the call return; that it is not in the log is a fate
 * which a real loss of power has in store too. benchmarks/_sdk/disk.py reads the log.
 *
 * Record: magic "PWR1", kind, length of the path, length of the rest (32 bits each), offset (64 bits), all in
 * the machine's order; then the path, then the rest: data written, or the new name of what is renamed.
 *
 * POWER_SYNC_US: how long each sync takes at least, in microseconds, as on a memory card.
 *
 * Covers what SQLite and Python call on Linux: open, creat, write, pwrite, writev, ftruncate, truncate, unlink,
 * rename, fsync, fdatasync, and the variants of them for large files and folders' descriptors. Not mmap,
 * fallocate, sendfile, links: disk.py's `agrees` finds out if a program uses them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, UNLINK, RENAME, SYNC, SYNC_FOLDER };

struct record {
    char magic[4];
    uint32_t kind, path_bytes, rest_bytes;
    uint64_t offset;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_bytes;
static int log_fd = -1;
static useconds_t sync_us = 0;

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("POWER_FOLDER"), *log = getenv("POWER_LOG");
    if (where == NULL || log == NULL || realpath(where, folder) == NULL) {
        folder[0] = 0;
        return;
    }
    folder_bytes = strlen(folder);
    const char *slow = getenv("POWER_SYNC_US");
    if (slow != NULL) sync_us = (useconds_t)atoi(slow);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Whether a path is the folder or below it. */
static int below(const char *path) {
    if (log_fd < 0 || folder_bytes == 0 || strncmp(path, folder, folder_bytes) != 0) return 0;
    return path[folder_bytes] == '/' || path[folder_bytes] == 0;
}

/* The path behind a descriptor, if it is of interest. A file that has been unlinked is not. */
static int path_of(int fd, char *path) {
    static const char gone[] = " (deleted)";
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    size_t tail = sizeof gone - 1;
    if ((size_t)n > tail && strcmp(path + n - tail, gone) == 0) return 0;
    return below(path);
}

/* The absolute path of a name relative to a folder's descriptor; its folder must exist. */
static int absolute(int dir, const char *name, char *path) {
    char joined[PATH_MAX], parent[PATH_MAX];
    if (name[0] == '/' || dir == AT_FDCWD) {
        if (snprintf(joined, sizeof joined, "%s", name) >= (int)sizeof joined) return 0;
    } else {
        char link[64], base[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n <= 0) return 0;
        base[n] = 0;
        if (snprintf(joined, sizeof joined, "%s/%s", base, name) >= (int)sizeof joined) return 0;
    }
    char *slash = strrchr(joined, '/');
    const char *leaf = slash == NULL ? joined : slash + 1;
    if (slash == NULL) {
        if (realpath(".", parent) == NULL) return 0;
    } else {
        char kept = slash[1];
        slash[1] = 0;
        char *found = realpath(joined, parent);
        slash[1] = kept;
        if (found == NULL) return 0;
    }
    if (snprintf(path, PATH_MAX, "%s/%s", parent, leaf) >= PATH_MAX) return 0;
    return below(path);
}

static void note(enum kind kind, const char *path, uint64_t offset, const void *rest, size_t rest_bytes) {
    struct record r = {{'P', 'W', 'R', '1'}, kind, (uint32_t)strlen(path), (uint32_t)rest_bytes, offset};
    struct iovec all[] = {{&r, sizeof r}, {(void *)path, r.path_bytes}, {(void *)rest, rest_bytes}};
    int kept = errno;
    if (syscall(SYS_writev, log_fd, all, 3) != (long)(sizeof r + r.path_bytes + r.rest_bytes)) {
        static const char said[] = "power_loss: the log cannot be written\n";
        syscall(SYS_write, 2, said, sizeof said - 1);
        _exit(70);
    }
    errno = kept;
}

#define LOCK pthread_mutex_lock(&one_at_a_time)
#define UNLOCK pthread_mutex_unlock(&one_at_a_time)

/* --- open */

static int open_and_note(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat before;
    int changes = flags & (O_CREAT | O_TRUNC);
    if (!changes || !absolute(dir, name, path)) return (int)syscall(SYS_openat, dir, name, flags, mode);
    LOCK;
    int was = stat(path, &before) == 0;
    int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && !was) note(CREATE, path, 0, NULL, 0);
    if (fd >= 0 && was && (flags & O_TRUNC) && before.st_size > 0) note(TRUNCATE, path, 0, NULL, 0);
    UNLOCK;
    return fd;
}

#define MODE_OF(flags)                                          \
    mode_t mode = 0;                                            \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                      \
        va_list more;                                           \
        va_start(more, flags);                                  \
        mode = va_arg(more, mode_t);                            \
        va_end(more);                                           \
    }

int open(const char *name, int flags, ...) { MODE_OF(flags) return open_and_note(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE_OF(flags) return open_and_note(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE_OF(flags) return open_and_note(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE_OF(flags) return open_and_note(dir, name, flags, mode); }
int creat(const char *name, mode_t mode) {
    return open_and_note(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* --- write */

static ssize_t pwrite_and_note(int fd, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(SYS_pwrite64, fd, data, size, offset);
    LOCK;
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) note(WRITE, path, (uint64_t)offset, data, (size_t)done);
    UNLOCK;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite_and_note(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return pwrite_and_note(fd, data, size, offset);
}

/* Where the next write of a descriptor begins. */
static uint64_t position(int fd) {
    struct stat now;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &now) == 0) return (uint64_t)now.st_size;
    return (uint64_t)lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    if (log_fd < 0 || !path_of(fd, path)) return syscall(SYS_write, fd, data, size);
    LOCK;
    uint64_t offset = position(fd);
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (done > 0) note(WRITE, path, offset, data, (size_t)done);
    UNLOCK;
    return done;
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    char path[PATH_MAX];
    if (log_fd < 0 || !path_of(fd, path)) return syscall(SYS_writev, fd, pieces, count);
    /* Piece by piece: allowed, and each is a record. */
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, pieces[i].iov_base, pieces[i].iov_len);
        if (done < 0) return all > 0 ? all : done;
        all += done;
        if ((size_t)done < pieces[i].iov_len) break;
    }
    return all;
}

/* --- size */

static int truncate_and_note(int fd, off64_t size) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)syscall(SYS_ftruncate, fd, size);
    LOCK;
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (done == 0) note(TRUNCATE, path, (uint64_t)size, NULL, 0);
    UNLOCK;
    return done;
}

int ftruncate(int fd, off_t size) { return truncate_and_note(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_and_note(fd, size); }

int truncate(const char *name, off_t size) {
    char path[PATH_MAX];
    if (!absolute(AT_FDCWD, name, path)) return (int)syscall(SYS_truncate, name, size);
    LOCK;
    int done = (int)syscall(SYS_truncate, name, size);
    if (done == 0) note(TRUNCATE, path, (uint64_t)size, NULL, 0);
    UNLOCK;
    return done;
}
int truncate64(const char *name, off64_t size) { return truncate(name, size); }

/* --- entries of folders */

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    if ((flags & AT_REMOVEDIR) || !absolute(dir, name, path))
        return (int)syscall(SYS_unlinkat, dir, name, flags);
    LOCK;
    int done = (int)syscall(SYS_unlinkat, dir, name, flags);
    if (done == 0) note(UNLINK, path, 0, NULL, 0);
    UNLOCK;
    return done;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int renameat(int from, const char *old, int to, const char *new) {
    char was[PATH_MAX], is[PATH_MAX];
    if (!absolute(from, old, was) || !absolute(to, new, is))
        return (int)syscall(SYS_renameat2, from, old, to, new, 0);
    LOCK;
    int done = (int)syscall(SYS_renameat2, from, old, to, new, 0);
    if (done == 0) note(RENAME, was, 0, is, strlen(is));
    UNLOCK;
    return done;
}
int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }

/* --- what is on the disk from here on */

static int sync_and_note(long call, int fd) {
    char path[PATH_MAX];
    struct stat what;
    if (!path_of(fd, path)) return (int)syscall(call, fd);
    if (sync_us > 0) usleep(sync_us);
    LOCK;
    int done = (int)syscall(call, fd);
    if (done == 0 && fstat(fd, &what) == 0) 
        note(S_ISDIR(what.st_mode) ? SYNC_FOLDER : SYNC, path, 0, NULL, 0);
    UNLOCK;
    return done;
}

int fsync(int fd) { return sync_and_note(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_and_note(SYS_fdatasync, fd); }
