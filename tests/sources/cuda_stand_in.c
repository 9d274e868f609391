/* A stand-in for libcuda: one board, the first of nvml_stand_in.c, on which a launch takes some microseconds and does nothing. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static int anything;
static const unsigned char name[16] = {0, 0, 0, 0, 0xaa, 0xaa};

int cuInit(unsigned int flags) { (void)flags; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { (void)device; memcpy(uuid, name, sizeof name); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &anything; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
int cuCtxSetCurrent(void *context) { return context == &anything ? 0 : 201; }
int cuModuleLoadData(void **module, const void *image) { *module = &anything; return strstr(image, "spin") ? 0 : 218; }
int cuModuleGetFunction(void **function, void *module, const char *name) { (void)module; *function = &anything; return strcmp(name, "spin") ? 500 : 0; }
int cuMemAlloc_v2(uint64_t *address, size_t size) { (void)size; *address = 1; return 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **arguments, void **extra) {
    (void)gy, (void)gz, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    usleep(gx > 1 ? 1000 : 1);
    return function == &anything && bx && *(unsigned *)arguments[0] ? 0 : 1;
}
int cuCtxSynchronize(void) { return 0; }
