/* Preloaded into a program: reading certain bytes of certain files fails as on a disk with unreadable sectors. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_unreadable(int fd, long long offset, size_t count) {
  const char *name = getenv("READ_ERRORS_NAME"), *from = getenv("READ_ERRORS_FROM"), *to = getenv("READ_ERRORS_TO");
  if (!name || !from || !to || offset < 0) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  const char *slash = strrchr(path, '/');
  return slash && !strcmp(slash + 1, name) && offset < atoll(to) && offset + (long long)count > atoll(from);
}

#define INTERPOSE(name, offset, parameters, arguments)                          \
  ssize_t name parameters {                                                     \
    static ssize_t(*real) parameters;                                           \
    if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name);           \
    if (is_unreadable(fd, offset, count)) {                                     \
      errno = EIO;                                                              \
      return -1;                                                                \
    }                                                                           \
    return real arguments;                                                      \
  }

INTERPOSE(read, lseek64(fd, 0, SEEK_CUR), (int fd, void *to, size_t count), (fd, to, count))
INTERPOSE(pread, from, (int fd, void *to, size_t count, off_t from), (fd, to, count, from))
INTERPOSE(pread64, from, (int fd, void *to, size_t count, off64_t from), (fd, to, count, from))
