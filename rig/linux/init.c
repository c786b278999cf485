// The only program of the Linux guest. On its two ext4 disks it appends numbered records, the same to both, and it keeps the
// number and a ring of pages made of it in its memory. It reads everything back without end and says BAD where something is
// not what it wrote. "n=NUMBER" on the serial port: all records up to that one are on both disks, whatever happens.
//
// A record is 512 bytes that follow from its number alone: see `word`. crates/testkit/src/linux_records.rs knows them, too.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  RECORD_WORDS = 64,
  RECORDS_PER_FILE = 1024,
  FILES_KEPT = 4,
  RECORDS_PER_SYNC = 8,
  PAGES = 1024,
  PAGE_WORDS = 512,
};

static const char *const disks[] = {"/dev/sdb", "/dev/sdc"};
static const char *const folders[] = {"/a", "/b"};
static uint64_t pages[PAGES][PAGE_WORDS];
static int serial;

static uint64_t word(uint64_t number, uint64_t index) {
  if (index == 0) return number;
  uint64_t z = number * 0x9e3779b97f4a7c15 + index * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

static void stop(const char *what, const char *on) {
  dprintf(serial, "BAD %s %s: %s\n", what, on, strerror(errno));
  for (;;) pause();
}

static void load_modules(void) {
  for (int i = 0;; i++) {
    char path[32];
    snprintf(path, sizeof path, "/module%02d.ko", i);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST) stop("module", path);
    close(file);
    unlink(path);
  }
}

static void mount_disk(int disk) {
  mkdir(folders[disk], 0755);
  for (int tries = 0; mount(disks[disk], folders[disk], "ext4", 0, "errors=remount-ro") != 0; tries++) {
    if (tries == 600) stop("mount", disks[disk]);
    usleep(100 * 1000);
  }
}

static void file_name(char *path, size_t bytes, int disk, uint64_t number) {
  snprintf(path, bytes, "%s/%08llu", folders[disk], (unsigned long long)(number / RECORDS_PER_FILE));
}

static int open_file(int disk, uint64_t number) {
  char path[64];
  if (number >= FILES_KEPT * RECORDS_PER_FILE) {
    file_name(path, sizeof path, disk, number - FILES_KEPT * RECORDS_PER_FILE);
    unlink(path);
  }
  file_name(path, sizeof path, disk, number);
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) stop("open", path);
  return file;
}

static void append(int file, int disk, uint64_t number) {
  uint64_t record[RECORD_WORDS];
  for (int i = 0; i < RECORD_WORDS; i++) record[i] = word(number, i);
  if (write(file, record, sizeof record) != sizeof record) stop("write", folders[disk]);
}

// The file before the current one is complete. O_DIRECT: from the disk, not from the cache.
static void check_file(int disk, uint64_t number) {
  static uint64_t records[RECORDS_PER_FILE][RECORD_WORDS] __attribute__((aligned(4096)));
  if (number < RECORDS_PER_FILE) return;
  uint64_t first = (number / RECORDS_PER_FILE - 1) * RECORDS_PER_FILE;
  char path[64];
  file_name(path, sizeof path, disk, first);
  int file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file < 0 || read(file, records, sizeof records) != sizeof records) stop("read", path);
  close(file);
  for (int i = 0; i < RECORDS_PER_FILE; i++)
    for (int j = 0; j < RECORD_WORDS; j++)
      if (records[i][j] != word(first + i, j)) stop("record", path);
}

static void renew_page(uint64_t number) {
  for (int i = 0; i < PAGE_WORDS; i++) pages[number % PAGES][i] = word(number, i);
}

static void check_page(uint64_t number) {
  const uint64_t *page = pages[number * 7 % PAGES];
  if (page[0] == 0) return;
  for (int i = 0; i < PAGE_WORDS; i++)
    if (page[i] != word(page[0], i)) stop("page", "in memory");
}

// Fills the page cache from a disk that is there for that.
static void fill_cache(const char *disk) {
  static char buffer[1 << 20];
  int file = open(disk, O_RDONLY | O_CLOEXEC);
  if (file < 0) stop("open", disk);
  while (read(file, buffer, sizeof buffer) > 0) {}
  close(file);
}

static useconds_t milliseconds(const char *name, int usual) {
  const char *text = getenv(name);
  return (text ? atoi(text) : usual) * 1000;
}

int main(void) {
  mkdir("/dev", 0755);
  if (mount("dev", "/dev", "devtmpfs", 0, "") != 0) return 1;
  serial = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_CLOEXEC);
  load_modules();
  for (int disk = 0; disk < 2; disk++) mount_disk(disk);
  if (getenv("vrs_cache")) fill_cache(getenv("vrs_cache"));
  useconds_t pause_us = milliseconds("vrs_pause_ms", 5);
  int files[2];
  dprintf(serial, "vrs guest ready\n");
  for (uint64_t number = 0;; number++) {
    for (int disk = 0; disk < 2; disk++) {
      if (number % RECORDS_PER_FILE == 0) {
        if (number > 0) close(files[disk]);
        files[disk] = open_file(disk, number);
      }
      append(files[disk], disk, number);
    }
    renew_page(number);
    check_page(number);
    if (number % 512 == 511) check_file(number / 512 % 2, number);
    if (number % RECORDS_PER_SYNC == RECORDS_PER_SYNC - 1) {
      for (int disk = 0; disk < 2; disk++)
        if (fsync(files[disk]) != 0) stop("sync", folders[disk]);
      dprintf(serial, "n=%llu\n", (unsigned long long)number);
    }
    usleep(pause_us);
  }
}
