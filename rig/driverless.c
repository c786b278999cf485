/* Start stub in place of VBoxHeadless for machines without VirtualBox's kernel driver: initialises the support library
 * in its own driverless mode (SUPR3InitEx) and hands over to the unmodified VBoxHeadless.so. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define LIBRARIES "/usr/lib/virtualbox/"
enum { DRIVERLESS = 0x4, DRIVERLESS_IEM_ALLOWED = 0x8 };

static void die(const char *what) {
    fprintf(stderr, "VBoxHeadless stub: %s: %s\n", what, dlerror());
    exit(1);
}

static void *library(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!handle) die(path);
    return handle;
}

static void *symbol(void *handle, const char *name) {
    void *address = dlsym(handle, name);
    if (!address) die(name);
    return address;
}

int main(int argc, char **argv, char **environment) {
    void *runtime = library(LIBRARIES "VBoxRT.so");
    int (*init_runtime)(int, char ***, unsigned) = symbol(runtime, "RTR3InitExe");
    int (*init_support)(unsigned, void **) = symbol(runtime, "SUPR3InitEx");
    int status = init_runtime(argc, &argv, 0);
    if (status >= 0) status = init_support(DRIVERLESS | DRIVERLESS_IEM_ALLOWED, NULL);
    if (status < 0) {
        fprintf(stderr, "VBoxHeadless stub: VirtualBox status %d\n", status);
        return 1;
    }
    int (*run)(int, char **, char **) = symbol(library(LIBRARIES "VBoxHeadless.so"), "TrustedMain");
    return run(argc, argv, environment);
}
