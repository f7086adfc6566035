/* Writes down every change of the files under one folder, in one order for all processes that are given it.
 *
 * LD_PRELOAD=recorder.so POWER_LOSS_FOLDER=<absolute, without links> POWER_LOSS_JOURNAL=<file> command …
 * POWER_LOSS_NO_SYNC=1 makes every sync of them do nothing, which is what a disk that lies does.
 * SIGRTMAX ends a process as SIGKILL does, but never between a change and its note.
 *
 * A call is noted after it was made and before it returns, by one write to a journal opened with O_APPEND: what
 * happened before in the program stands before in the journal, in whichever process it was. Files are told apart by
 * inode, so a name is needed only where names change. `journal.py` reads what this writes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "watched.h"

#define PIECE (1 << 20)

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* What stands in a file now, noted as if just written: for calls that do not say what they wrote. */
static void note_content(int fd, ino_t ino, off_t from, size_t size) {
  static __thread char piece[PIECE];
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int saved = errno, reading = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
  if (reading < 0) abort();
  while (size) {
    ssize_t got = pread(reading, piece, size < PIECE ? size : PIECE, from);
    if (got <= 0) break;
    note('W', ino, 0, (uint64_t)from, NULL, NULL, piece, (size_t)got);
    from += got;
    size -= (size_t)got;
  }
  syscall(SYS_close, reading);
  errno = saved;
}

static void note_size(char kind, int fd, uint64_t size) {
  ino_t ino = watched(fd);
  if (ino) note(kind, ino, 0, size, NULL, NULL, NULL, 0);
}

static void note_sync(int fd, off_t begun) {
  ino_t ino = watched(fd);
  if (ino) note('S', ino, 0, (uint64_t)begun, NULL, NULL, NULL, 0);
}

static off_t journal_end(void) {
  struct stat status;
  return fstat(journal_fd(), &status) ? 0 : status.st_size;
}

static void note_written(int fd, off_t at, const struct iovec *parts, int count, ssize_t written) {
  ino_t ino = watched(fd);
  int flags = fcntl(fd, F_GETFL);
  if (at < 0) at = lseek(fd, 0, SEEK_CUR) - written;
  for (int part = 0; part < count && written > 0; part++) {
    size_t size = (ssize_t)parts[part].iov_len < written ? parts[part].iov_len : (size_t)written;
    note('W', ino, 0, (uint64_t)at, NULL, NULL, parts[part].iov_base, size);
    at += (off_t)size;
    written -= (ssize_t)size;
  }
  if ((flags & O_DSYNC) && is_syncing) note_sync(fd, journal_end());
}

/* what is written elsewhere (a pipe, a socket) may take for ever, and is no change */
#define NOTED(call, at, parts, count) \
  if (!watched(fd)) return call; \
  enter(); \
  ssize_t written = call; \
  note_written(fd, at, parts, count, written); \
  leave(); \
  return written;

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  struct iovec one = {(void *)data, size};
  NOTED(real(fd, data, size), -1, &one, 1)
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  NOTED(real(fd, parts, count), -1, parts, count)
}

#define PWRITE(name, offset_t) \
  ssize_t name(int fd, const void *data, size_t size, offset_t at) { \
    REAL(name); \
    struct iovec one = {(void *)data, size}; \
    NOTED(real(fd, data, size, at), at, &one, 1) \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(name, offset_t) \
  ssize_t name(int fd, const struct iovec *parts, int count, offset_t at) { \
    REAL(name); \
    NOTED(real(fd, parts, count, at), at, parts, count) \
  }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define PWRITEV2(name, offset_t) \
  ssize_t name(int fd, const struct iovec *parts, int count, offset_t at, int flags) { \
    REAL(name); \
    NOTED(real(fd, parts, count, at, flags), at, parts, count) \
  }
PWRITEV2(pwritev2, off_t)
PWRITEV2(pwritev64v2, off64_t)

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
  REAL(copy_file_range);
  ino_t ino = watched(out);
  if (!ino) return real(in, in_at, out, out_at, size, flags);
  enter();
  ssize_t copied = real(in, in_at, out, out_at, size, flags);
  if (copied > 0) note_content(out, ino, (out_at ? *out_at : lseek(out, 0, SEEK_CUR)) - copied, (size_t)copied);
  leave();
  return copied;
}

#define SENDFILE(name, offset_t) \
  ssize_t name(int out, int in, offset_t *at, size_t size) { \
    REAL(name); \
    ino_t ino = watched(out); \
    if (!ino) return real(out, in, at, size); \
    enter(); \
    ssize_t copied = real(out, in, at, size); \
    if (copied > 0) note_content(out, ino, lseek(out, 0, SEEK_CUR) - copied, (size_t)copied); \
    leave(); \
    return copied; \
  }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

#define FTRUNCATE(name, offset_t) \
  int name(int fd, offset_t size) { \
    REAL(name); \
    enter(); \
    int failed = real(fd, size); \
    if (!failed) note_size('T', fd, (uint64_t)size); \
    leave(); \
    return failed; \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define TRUNCATE(name, offset_t) \
  int name(const char *path, offset_t size) { \
    REAL(name); \
    enter(); \
    int failed = real(path, size); \
    const char *last; \
    if (!failed && parent_of(AT_FDCWD, path, &last)) \
      note('T', inode_at(AT_FDCWD, path), 0, (uint64_t)size, NULL, NULL, NULL, 0); \
    leave(); \
    return failed; \
  }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

#define POSIX_FALLOCATE(name, offset_t) \
  int name(int fd, offset_t at, offset_t size) { \
    REAL(name); \
    enter(); \
    int failed = real(fd, at, size); \
    if (!failed) note_size('G', fd, (uint64_t)(at + size)); \
    leave(); \
    return failed; \
  }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

#define FALLOCATE(name, offset_t) \
  int name(int fd, int mode, offset_t at, offset_t size) { \
    REAL(name); \
    enter(); \
    int failed = real(fd, mode, at, size); \
    /* other modes would change what stands in it: the check of the whole journal would tell */ \
    if (!failed && mode == 0) note_size('G', fd, (uint64_t)(at + size)); \
    leave(); \
    return failed; \
  }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

#define SYNC(name) \
  int name(int fd) { \
    REAL(name); \
    if (!watched(fd)) return real(fd); \
    if (!is_syncing) return 0; \
    off_t begun = journal_end(); \
    int failed = real(fd); \
    enter(); \
    if (!failed) note_sync(fd, begun); \
    leave(); \
    return failed; \
  }
SYNC(fsync)
SYNC(fdatasync)

static int changes(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

/* Forgets what a descriptor was: its inode may be another file's by now. */
static int opened(int fd) {
  if (fd >= 0 && fd < FDS) known[fd].ino = 0;
  return fd;
}

/* Notes what an open changed: a new name, or a file emptied. */
static void note_opened(int fd, int at, const char *path, int flags, uint64_t before) {
  const char *name;
  ino_t ino, folder_ino;
  if (opened(fd) < 0 || !(ino = watched(fd))) return;
  if (flags & O_CREAT && before == 0 && (folder_ino = parent_of(at, path, &name)))
    note('C', folder_ino, ino, 0, name, NULL, NULL, 0);
  else if (flags & O_TRUNC) note('T', ino, 0, 0, NULL, NULL, NULL, 0);
}

static uint64_t inode_before(int at, const char *path, int flags) {
  return folder_length && flags & O_CREAT ? inode_at(at, path) : 1;
}

#define MODE() \
  mode_t mode = 0; \
  if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    MODE() \
    if (!changes(flags)) return opened(real(path, flags, mode)); \
    enter(); \
    uint64_t before = inode_before(AT_FDCWD, path, flags); \
    int fd = real(path, flags, mode); \
    note_opened(fd, AT_FDCWD, path, flags, before); \
    leave(); \
    return fd; \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(name); \
    MODE() \
    if (!changes(flags)) return opened(real(at, path, flags, mode)); \
    enter(); \
    uint64_t before = inode_before(at, path, flags); \
    int fd = real(at, path, flags, mode); \
    note_opened(fd, at, path, flags, before); \
    leave(); \
    return fd; \
  }
OPENAT(openat)
OPENAT(openat64)

/* what `open` becomes where the compiler fortifies */
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int __openat_2(int at, const char *path, int flags) { return openat(at, path, flags); }
int __openat64_2(int at, const char *path, int flags) { return openat64(at, path, flags); }

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static void note_renamed(int at, const char *from, int other_at, const char *to) {
  const char *name, *other_name;
  ino_t one = parent_of(at, from, &name), other = parent_of(other_at, to, &other_name);
  if (one && other) note('R', one, other, 0, name, other_name, NULL, 0);
  else if (one) note('U', one, 0, 0, name, NULL, NULL, 0);
  /* what comes in from elsewhere has no history: the check of the whole journal would tell */
}

int rename(const char *from, const char *to) {
  REAL(rename);
  enter();
  int failed = real(from, to);
  if (!failed) note_renamed(AT_FDCWD, from, AT_FDCWD, to);
  leave();
  return failed;
}

int renameat(int at, const char *from, int other_at, const char *to) {
  REAL(renameat);
  enter();
  int failed = real(at, from, other_at, to);
  if (!failed) note_renamed(at, from, other_at, to);
  leave();
  return failed;
}

int renameat2(int at, const char *from, int other_at, const char *to, unsigned flags) {
  REAL(renameat2);
  enter();
  int failed = real(at, from, other_at, to, flags);
  if (!failed) note_renamed(at, from, other_at, to);
  leave();
  return failed;
}

static void note_named(char kind, int at, const char *path) {
  const char *name;
  ino_t parent = parent_of(at, path, &name);
  if (parent) note(kind, parent, inode_at(at, path), 0, name, NULL, NULL, 0);
}

int link(const char *from, const char *to) {
  REAL(link);
  enter();
  int failed = real(from, to);
  if (!failed) note_named('L', AT_FDCWD, to);
  leave();
  return failed;
}

int linkat(int at, const char *from, int other_at, const char *to, int flags) {
  REAL(linkat);
  enter();
  int failed = real(at, from, other_at, to, flags);
  if (!failed) note_named('L', other_at, to);
  leave();
  return failed;
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  enter();
  int failed = real(path, mode);
  if (!failed) note_named('D', AT_FDCWD, path);
  leave();
  return failed;
}

int mkdirat(int at, const char *path, mode_t mode) {
  REAL(mkdirat);
  enter();
  int failed = real(at, path, mode);
  if (!failed) note_named('D', at, path);
  leave();
  return failed;
}

#define UNLINK(name) \
  int name(const char *path) { \
    REAL(name); \
    const char *last; \
    enter(); \
    int failed = real(path); \
    ino_t parent = failed ? 0 : parent_of(AT_FDCWD, path, &last); \
    if (parent) note('U', parent, 0, 0, last, NULL, NULL, 0); \
    leave(); \
    return failed; \
  }
UNLINK(unlink)
UNLINK(rmdir)
UNLINK(remove)

int unlinkat(int at, const char *path, int flags) {
  REAL(unlinkat);
  const char *last;
  enter();
  int failed = real(at, path, flags);
  ino_t parent = failed ? 0 : parent_of(at, path, &last);
  if (parent) note('U', parent, 0, 0, last, NULL, NULL, 0);
  leave();
  return failed;
}

/* Streams write by calls inside the C library: what stands in their file is noted when they are flushed. */
static FILE *note_stream(FILE *stream, const char *path, const char *mode, uint64_t before) {
  int flags = mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT : 0;
  if (stream) note_opened(fileno(stream), AT_FDCWD, path, flags, before);
  return stream;
}

#define FOPEN(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    enter(); \
    uint64_t before = inode_before(AT_FDCWD, path, mode[0] != 'r' ? O_CREAT : 0); \
    FILE *stream = note_stream(real(path, mode), path, mode, before); \
    leave(); \
    return stream; \
  }
FOPEN(fopen)
FOPEN(fopen64)

static void note_flushed(int fd) {
  struct stat status;
  int flags = fcntl(fd, F_GETFL);
  ino_t ino = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY ? watched(fd) : 0;
  if (ino && !fstat(fd, &status) && S_ISREG(status.st_mode)) note_content(fd, ino, 0, (size_t)status.st_size);
}

int fflush(FILE *stream) {
  REAL(fflush);
  enter();
  int failed = real(stream);
  if (!failed && stream) note_flushed(fileno(stream));
  leave();
  return failed;
}

int fclose(FILE *stream) {
  REAL(fclose);
  int fd = fileno(stream);
  if (fd >= 0 && watched(fd)) fflush(stream);
  return real(stream);
}
