/* Faults of disk and clock for one process, preloaded into it (LD_PRELOAD) by paxos_rsm.testing.shim.
 *
 * What to do is read, at every call, from a file that both sides have mapped: PAXOS_RSM_SHIM names it. Each field is
 * a 64-bit integer at the place that the enumeration below gives it; shim.py has the same list. Faults of the disk
 * concern files below PAXOS_RSM_SHIM_DIRECTORY and nothing else: not the log on stderr, not a socket.
 *
 * - A sync can fail (the bytes that were written stay where they are: only the answer is false), or take its time.
 * - A write or an allocation can fail for want of space; with SPACE_GROWTH only what makes a file longer.
 * - The wall clock can be off. Who computes the moment at which a wait is to end from that clock hands it to the
 *   kernel, whose clock is right: so such waits (condition variables, semaphores, futexes) are put back by the same
 *   offset, or a jump would become a stall that no real jump makes. CLOCK_MONOTONIC is never touched.
 *
 * Without the file the library does nothing.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    MAGIC = 0,             /* MAGIC_VALUE, or nothing here is believed */
    SYNC_ERRORS = 1,       /* so many syncs fail yet */
    SYNC_ERRNO = 2,        /* with this */
    SYNC_DELAY_MS = 3,     /* and each takes so much longer */
    SPACE = 4,             /* SPACE_PLENTY, SPACE_NONE or SPACE_GROWTH */
    CLOCK_OFFSET_NS = 5,   /* of the wall clock */
    WRITE_ERRORS = 6,      /* so many writes fail yet, with EIO */
    /* what the process tells: */
    LOADED_PID = 16,
    SYNCS = 17,            /* begun, below the directory */
    SYNCS_FAILED = 18,
    WRITES_REFUSED = 19,   /* for want of space, or with EIO */
    SYNCS_DELAYED = 20,    /* begun, of those that take longer */
    SYNCS_AT_FAILURE = 21, /* SYNCS when the last one was made to fail */
    CLOCKS_SHIFTED = 22,   /* readings of the wall clock that were off */
    FIELDS = 64,
};
enum { SPACE_PLENTY = 0, SPACE_NONE = 1, SPACE_GROWTH = 2 };
#define MAGIC_VALUE INT64_C(0x70617873686d31)

static _Atomic int64_t *control;
static char directory[PATH_MAX];
static size_t directory_length;

static int64_t field(int which) { return control ? atomic_load(&control[which]) : 0; }

static void count(int which) { atomic_fetch_add(&control[which], 1); }

/* Takes one off a counter; false where it is at 0. */
static int take(int which) {
    int64_t left = field(which);
    while (left > 0)
        if (atomic_compare_exchange_weak(&control[which], &left, left - 1)) return 1;
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PAXOS_RSM_SHIM"), *below = getenv("PAXOS_RSM_SHIM_DIRECTORY");
    if (!path || !below || strlen(below) >= sizeof directory) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, FIELDS * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return;
    if (atomic_load(&((_Atomic int64_t *)mapped)[MAGIC]) != MAGIC_VALUE) return;
    strcpy(directory, below);
    directory_length = strlen(directory);
    control = mapped;
    atomic_store(&control[LOADED_PID], getpid());
}

/* The next definition of a function, after this library's. */
static void *next(const char *name, const char *version) {
    void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    if (!found) found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

#define REAL(name, version, result, ...)                                  \
    static result (*real)(__VA_ARGS__);                                   \
    if (!real) real = (result(*)(__VA_ARGS__))next(#name, version)

/* Whether a descriptor is a file (or directory) in the directory, or that itself. */
static int concerns(int fd) {
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)directory_length || strncmp(path, directory, directory_length)) return 0;
    return length == (ssize_t)directory_length || path[directory_length] == '/';
}

/* ---- syncs ---- */

/* What a sync comes to before it is made: 0, or the error that it fails with. */
static int before_sync(int fd) {
    if (!control || !concerns(fd)) return 0;
    count(SYNCS);
    int64_t delay_ms = field(SYNC_DELAY_MS);
    if (delay_ms > 0) {
        count(SYNCS_DELAYED);
        /* In slices, so that a delay that is taken back ends. */
        for (int64_t slept = 0; slept < delay_ms && slept < field(SYNC_DELAY_MS); slept += 10) {
            struct timespec slice = {0, 10 * 1000 * 1000};
            nanosleep(&slice, NULL);
        }
    }
    if (!take(SYNC_ERRORS)) return 0;
    count(SYNCS_FAILED);
    atomic_store(&control[SYNCS_AT_FAILURE], field(SYNCS));
    return (int)field(SYNC_ERRNO);
}

#define SYNC(name)                          \
    int name(int fd) {                      \
        REAL(name, NULL, int, int);         \
        int error = before_sync(fd);        \
        if (error) {                        \
            errno = error;                  \
            return -1;                      \
        }                                   \
        return real(fd);                    \
    }

SYNC(fsync)
SYNC(fdatasync)

/* ---- writes ---- */

/* The error that a write up to `end` (-1: wherever the file's offset is) fails with, or 0. */
static int before_write(int fd, off_t end) {
    if (!control) return 0;
    int64_t space = field(SPACE);
    if ((space == SPACE_PLENTY && field(WRITE_ERRORS) <= 0) || !concerns(fd)) return 0;
    if (take(WRITE_ERRORS)) {
        count(WRITES_REFUSED);
        return EIO;
    }
    if (space == SPACE_PLENTY) return 0;
    if (space == SPACE_GROWTH) {
        struct stat found;
        if (end >= 0 && !fstat(fd, &found) && end <= found.st_size) return 0;
    }
    count(WRITES_REFUSED);
    return ENOSPC;
}

#define REFUSED(fd, end)                    \
    int error = before_write(fd, end);      \
    if (error) {                            \
        errno = error;                      \
        return -1;                          \
    }

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write, NULL, ssize_t, int, const void *, size_t);
    REFUSED(fd, -1)
    return real(fd, data, length);
}

#define PWRITE(name, offset_type)                                                    \
    ssize_t name(int fd, const void *data, size_t length, offset_type offset) {      \
        REAL(name, NULL, ssize_t, int, const void *, size_t, offset_type);           \
        REFUSED(fd, (off_t)(offset + (offset_type)length))                           \
        return real(fd, data, length, offset);                                       \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define POSIX_FALLOCATE(name, offset_type)                               \
    int name(int fd, offset_type offset, offset_type length) {           \
        REAL(name, NULL, int, int, offset_type, offset_type);            \
        int error = before_write(fd, (off_t)(offset + length));          \
        return error ? error : real(fd, offset, length);                 \
    }

POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

#define FALLOCATE(name, offset_type)                                          \
    int name(int fd, int mode, offset_type offset, offset_type length) {      \
        REAL(name, NULL, int, int, int, offset_type, offset_type);            \
        REFUSED(fd, (off_t)(offset + length))                                 \
        return real(fd, mode, offset, length);                                \
    }

FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

/* ---- the wall clock ---- */

#define NS_PER_S INT64_C(1000000000)

static void shift(struct timespec *time, int64_t by_ns) {
    int64_t seconds = by_ns / NS_PER_S, rest = time->tv_nsec + by_ns % NS_PER_S;
    if (rest < 0) {
        rest += NS_PER_S;
        seconds--;
    }
    time->tv_sec += seconds + rest / NS_PER_S;
    time->tv_nsec = rest % NS_PER_S;
    if (time->tv_sec < 0) time->tv_sec = time->tv_nsec = 0;
}

/* Makes a reading of the true clock one of the false clock. */
static void falsify(struct timespec *time) {
    int64_t offset_ns = field(CLOCK_OFFSET_NS);
    if (!offset_ns) return;
    shift(time, offset_ns);
    count(CLOCKS_SHIFTED);
}

/* The moment `until` of the false clock, by the true one. */
static const struct timespec *truly(const struct timespec *until, struct timespec *place) {
    int64_t offset_ns = field(CLOCK_OFFSET_NS);
    if (!offset_ns || !until) return until;
    *place = *until;
    shift(place, -offset_ns);
    return place;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime, NULL, int, clockid_t, struct timespec *);
    int result = real(clock, time);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) falsify(time);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    REAL(gettimeofday, NULL, int, struct timeval *, void *);
    int result = real(time, zone);
    if (!result) {
        struct timespec exact = {time->tv_sec, time->tv_usec * 1000};
        falsify(&exact);
        time->tv_sec = exact.tv_sec;
        time->tv_usec = exact.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}

static int waits_for_wall_clock(const pthread_cond_t *condition) {
#ifdef __GLIBC__
    return !(condition->__data.__wrefs & 2); /* glibc keeps there which clock pthread_condattr_setclock chose */
#else
    (void)condition;
    return 1;
#endif
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    REAL(pthread_cond_timedwait, "GLIBC_2.3.2", int, pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec place;
    return real(condition, mutex, waits_for_wall_clock(condition) ? truly(until, &place) : until);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    REAL(sem_timedwait, NULL, int, sem_t *, const struct timespec *);
    struct timespec place;
    return real(semaphore, truly(until, &place));
}

/* Its arguments are words, at most six; reading those that were not given reads what nobody looks at. */
long syscall(long number, ...) {
    REAL(syscall, NULL, long, long, ...);
    va_list words;
    va_start(words, number);
    long a = va_arg(words, long), b = va_arg(words, long), c = va_arg(words, long);
    long d = va_arg(words, long), e = va_arg(words, long), f = va_arg(words, long);
    va_end(words);
    struct timespec place;
    if (number == SYS_futex && (b & FUTEX_CLOCK_REALTIME) && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET)
        d = (long)truly((const struct timespec *)d, &place);
    return real(number, a, b, c, d, e, f);
}
