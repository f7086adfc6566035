/* Writes notes to the journal, and ends a process when told to, between two changes. */
#pragma once

#define MAGIC 0x4c575052u

struct head {
  uint32_t magic;
  uint32_t kind;
  uint64_t first, second, number;
  uint32_t name, other_name;
  uint64_t data;
};

static const char *folder, *journal_path;
static size_t folder_length;
static int is_syncing = 1;
static int journal = -1;

/* Changes under way whose notes are not written yet, and whether the process is to end before the next one. */
static atomic_int under_way, is_ending;

static void end_if_told(void) {
  if (is_ending && under_way == 0) kill(getpid(), SIGKILL);
}

static void enter(void) {
  under_way++;
  if (is_ending) {
    under_way--;
    end_if_told();
    for (;;) pause();
  }
}

static void leave(void) {
  under_way--;
  end_if_told();
}

static void told_to_end(int number) {
  (void)number;
  is_ending = 1;
  end_if_told();
}

/* of the threads that were in the midst of something, none is in the child */
static void forked(void) { under_way = 0; }

__attribute__((constructor)) static void begin(void) {
  /* copies: servers write their process titles over the environment */
  const char *path = getenv("POWER_LOSS_FOLDER");
  folder = path ? strdup(path) : NULL;
  path = getenv("POWER_LOSS_JOURNAL");
  journal_path = path ? strdup(path) : NULL;
  folder_length = folder ? strlen(folder) : 0;
  is_syncing = getenv("POWER_LOSS_NO_SYNC") == NULL;
  struct sigaction action = {.sa_handler = told_to_end, .sa_flags = SA_RESTART};
  sigaction(SIGRTMAX, &action, NULL);
  pthread_atfork(NULL, NULL, forked);
}

static int journal_fd(void) {
  if (journal < 0) {
    int low = journal_path ? (int)syscall(SYS_openat, AT_FDCWD, journal_path, O_WRONLY | O_APPEND | O_CLOEXEC, 0) : -1;
    /* out of the way of programs that count on low numbers */
    if (low >= 0) {
      journal = fcntl(low, F_DUPFD_CLOEXEC, 700);
      syscall(SYS_close, low);
    }
    if (journal < 0) abort();
  }
  return journal;
}

static void note(char kind, uint64_t first, uint64_t second, uint64_t number, const char *name, const char *other,
                 const void *data, size_t size) {
  int saved = errno;
  struct head head = {MAGIC, (uint32_t)kind, first, second, number, name ? strlen(name) : 0,
                      other ? strlen(other) : 0, size};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)name, head.name}, {(void *)other, head.other_name},
                          {(void *)data, size}};
  ssize_t length = (ssize_t)(sizeof head + head.name + head.other_name + size);
  if (syscall(SYS_writev, journal_fd(), parts, 4) != length) abort();
  errno = saved;
}
