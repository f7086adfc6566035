/* Which descriptors and paths are under the folder that is watched, and their inodes. */
#pragma once
#include "notes.h"

#define FDS 4096

/* what a descriptor was when it was last looked at */
static struct { dev_t dev; ino_t ino; int is_inside; } known[FDS];

static int is_below(const char *path) {
  return folder_length && !strncmp(path, folder, folder_length) &&
         (path[folder_length] == '/' || path[folder_length] == 0 || path[folder_length] == ' ');
}

static int leads_inside(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

/* The inode of a file or folder under the folder; 0 for any other descriptor. */
static ino_t watched(int fd) {
  int saved = errno;
  struct stat status;
  ino_t found = 0;
  if (folder_length && fd >= 0 && fd < FDS && !fstat(fd, &status) &&
      (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) {
    if (known[fd].ino != status.st_ino || known[fd].dev != status.st_dev) {
      known[fd].is_inside = leads_inside(fd);
      known[fd].dev = status.st_dev;
      known[fd].ino = status.st_ino;
    }
    found = known[fd].is_inside ? status.st_ino : 0;
  }
  errno = saved;
  return found;
}

/* The inode of the folder in which `path` is a name, when that is watched, else 0; `name` is its last part. */
static ino_t parent_of(int at, const char *path, const char **name) {
  int saved = errno;
  char start[PATH_MAX];
  const char *slash = strrchr(path, '/');
  struct stat status;
  ino_t found = 0;
  *name = slash ? slash + 1 : path;
  if (!folder_length || strlen(path) >= sizeof start) return 0;
  if (slash == path) strcpy(start, "/");
  else if (slash) { memcpy(start, path, (size_t)(slash - path)); start[slash - path] = 0; }
  else strcpy(start, ".");
  int fd = (int)syscall(SYS_openat, at, start, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd >= 0) {
    if (leads_inside(fd) && !fstat(fd, &status)) found = status.st_ino;
    syscall(SYS_close, fd);
  }
  errno = saved;
  return found;
}

static uint64_t inode_at(int at, const char *path) {
  int saved = errno;
  struct stat status;
  int failed = fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW);
  errno = saved;
  return failed ? 0 : status.st_ino;
}
