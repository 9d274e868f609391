/* A stand-in for libnvidia-ml: two boards whose power over time is known, and any error at any call.
 *
 * Board 0 draws 100 W and 300 W in turns of half a second and shows its counter every 20 ms; board 1 draws 250 W and shows it
 * every 100 ms. Time begins at STAND_IN_T0_NS (CLOCK_MONOTONIC). STAND_IN_ERROR=<function>:<code>:<calls> makes a function
 * answer <code> from its call number <calls> on. Only what the real bindings call is here; types are those of NVML's interface.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int nvmlReturn_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

#define TICKS 20000000LL, 100000000LL
static const long long tick_ns[2] = {TICKS};
static const char *uuids[2] = {"GPU-00000000-aaaa-0000-0000-000000000000", "GPU-11111111-bbbb-0000-0000-000000000000"};
static int boards[2] = {0, 1};

static nvmlReturn_t refused(const char *function) {
    static unsigned int calls[64];
    static const char *names[64];
    const char *wanted = getenv("STAND_IN_ERROR");
    size_t length = strlen(function);
    int slot = 0;
    while (slot < 63 && names[slot] && strcmp(names[slot], function)) slot++;
    names[slot] = function;
    calls[slot]++;
    if (!wanted || strncmp(wanted, function, length) || wanted[length] != ':') return 0;
    int code = 0;
    unsigned int from = 1;
    if (sscanf(wanted + length, ":%d:%u", &code, &from) < 1) return 0;
    return calls[slot] >= from ? code : 0;
}
#define ANSWER do { nvmlReturn_t error = refused(__func__); if (error) return error; } while (0)

static long long now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    const char *zero = getenv("STAND_IN_T0_NS");
    return at.tv_sec * 1000000000LL + at.tv_nsec - (zero ? atoll(zero) : 0);
}

static double joules(int board, long long ns) {
    double s = ns * 1e-9;
    if (board == 1) return 250.0 * s;
    long long halves = (long long)(s / 0.5);
    double rest = s - 0.5 * halves;
    return (halves / 2) * 200.0 + (halves % 2 ? 50.0 + 300.0 * rest : 100.0 * rest);
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { ANSWER; (void)flags; return 0; }
nvmlReturn_t nvmlInit_v2(void) { ANSWER; return 0; }
nvmlReturn_t nvmlShutdown(void) { ANSWER; return 0; }
const char *nvmlErrorString(nvmlReturn_t code) { static char text[32]; snprintf(text, sizeof text, "stand-in error %d", code); return text; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) { ANSWER; *count = 2; return 0; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) { ANSWER; if (index > 1) return 2; *handle = &boards[index]; return 0; }
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    ANSWER;
    for (int i = 0; i < 2; i++) if (!strcmp(uuid, uuids[i])) { *handle = &boards[i]; return 0; }
    return 6;
}
nvmlReturn_t nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int length) { ANSWER; snprintf(uuid, length, "%s", uuids[*(int *)handle]); return 0; }
nvmlReturn_t nvmlDeviceGetName(void *handle, char *name, unsigned int length) { ANSWER; (void)handle; snprintf(name, length, "NVIDIA H100 80GB HBM3"); return 0; }
nvmlReturn_t nvmlDeviceGetPciInfo_v3(void *handle, nvmlPciInfo_t *pci) {
    ANSWER;
    memset(pci, 0, sizeof *pci);
    pci->bus = 1 + *(int *)handle;
    return 0;
}
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj) {
    ANSWER;
    int board = *(int *)handle;
    long long ns = now_ns();
    *energy_mj = 5000000ULL + (unsigned long long)(1000.0 * joules(board, ns - ns % tick_ns[board]));
    return 0;
}
nvmlReturn_t nvmlDeviceGetPowerUsage(void *handle, unsigned int *power_mw) {
    ANSWER;
    *power_mw = *(int *)handle == 1 ? 250000 : ((now_ns() / 500000000LL) % 2 ? 300000 : 100000);
    return 0;
}
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *limit_mw) { ANSWER; (void)handle; *limit_mw = 700000; return 0; }
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) { ANSWER; (void)handle; *major = 9; *minor = 0; return 0; }
nvmlReturn_t nvmlDeviceGetMigMode(void *handle, unsigned int *current, unsigned int *pending) { ANSWER; (void)handle; *current = *pending = 0; return 0; }
nvmlReturn_t nvmlDeviceGetUtilizationRates(void *handle, nvmlUtilization_t *rates) { ANSWER; rates->gpu = *(int *)handle ? 80 : 35; rates->memory = 10; return 0; }
nvmlReturn_t nvmlDeviceGetFieldValues(void *handle, int count, void *values) { ANSWER; (void)handle; (void)count; (void)values; return 3; }
