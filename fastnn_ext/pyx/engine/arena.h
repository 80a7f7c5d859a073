/* Per-thread scratch memory that is kept between calls.
 *
 *     void *fnn_workspace(int slot, size_t bytes)
 *
 * returns at least `bytes` bytes, 64-byte aligned and uninitialised, or NULL when there is no memory. The region
 * belongs to the calling thread and to `slot`, and stays valid until the same thread asks for the same slot again;
 * so callers that nest (a convolution around a GEMM) use different slots. A slot grows when needed and never
 * shrinks: callers block their work so that what they ask for is bounded, whatever the size of the arrays. Everything
 * is freed when the thread ends. Each extension module that includes this header has slots of its own.
 */
#ifndef FASTNN_ARENA_H
#define FASTNN_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#endif

#if defined(__GNUC__)
#define FNN_STATIC static __attribute__((unused))
#define FNN_THREAD_LOCAL __thread
#elif defined(_MSC_VER)
#define FNN_STATIC static
#define FNN_THREAD_LOCAL __declspec(thread)
#else
#define FNN_STATIC static
#define FNN_THREAD_LOCAL _Thread_local
#endif

enum {
    FNN_SLOT_GEMM_A,      /* packed panels of A */
    FNN_SLOT_GEMM_B,      /* packed panels of B */
    FNN_SLOT_GEMM_C,      /* a block of C that is stored transposed */
    FNN_SLOT_USER,        /* first of the slots that are free for callers of the engine */
    FNN_SLOT_COUNT = 12
};

typedef struct {
    void *memory[FNN_SLOT_COUNT]; /* what is to be freed */
    void *data[FNN_SLOT_COUNT];   /* the same, aligned */
    size_t size[FNN_SLOT_COUNT];
} fnn_arena;

static FNN_THREAD_LOCAL fnn_arena *fnn_arena_of_thread;

static void fnn_arena_free(fnn_arena *arena)
{
    if (arena == NULL)
        return;
    for (int slot = 0; slot < FNN_SLOT_COUNT; slot++)
        free(arena->memory[slot]);
    free(arena);
    fnn_arena_of_thread = NULL;
}

/* The thread-local pointer makes the lookup cheap; the key exists only for its destructor at the thread's end. */
#if defined(_WIN32)
static DWORD fnn_arena_key;
static INIT_ONCE fnn_arena_once = INIT_ONCE_STATIC_INIT;

static void NTAPI fnn_arena_at_exit(void *arena)
{
    fnn_arena_free((fnn_arena *)arena);
}

static BOOL CALLBACK fnn_arena_create_key(PINIT_ONCE once, void *parameter, void **context)
{
    (void)once, (void)parameter, (void)context;
    fnn_arena_key = FlsAlloc(fnn_arena_at_exit);
    return TRUE;
}

static int fnn_arena_register(fnn_arena *arena)
{
    InitOnceExecuteOnce(&fnn_arena_once, fnn_arena_create_key, NULL, NULL);
    return fnn_arena_key != FLS_OUT_OF_INDEXES && FlsSetValue(fnn_arena_key, arena);
}
#else
static pthread_key_t fnn_arena_key;
static pthread_once_t fnn_arena_once = PTHREAD_ONCE_INIT;
static int fnn_arena_has_key;

static void fnn_arena_at_exit(void *arena)
{
    fnn_arena_free((fnn_arena *)arena);
}

static void fnn_arena_create_key(void)
{
    fnn_arena_has_key = pthread_key_create(&fnn_arena_key, fnn_arena_at_exit) == 0;
}

static int fnn_arena_register(fnn_arena *arena)
{
    pthread_once(&fnn_arena_once, fnn_arena_create_key);
    return fnn_arena_has_key && pthread_setspecific(fnn_arena_key, arena) == 0;
}
#endif

/* Large regions begin on huge pages where the system has them: panels that are run through again and again would miss
 * the processor's table of small ones. What is left after whole huge pages stays on small ones, as do regions that are
 * far from filling one, so that no more memory is taken than asked for, or little more. */
static void *fnn_arena_allocate(size_t size)
{
#if defined(MADV_HUGEPAGE)
    enum { HUGE = 2 << 20, LEAST = 3 << 18 };
    void *memory;
    if (size >= LEAST && posix_memalign(&memory, HUGE, size < HUGE ? HUGE : size) == 0) {
        madvise(memory, size < HUGE ? HUGE : size / HUGE * HUGE, MADV_HUGEPAGE);
        return memory;
    }
#endif
    return malloc(size);
}

static int fnn_arena_grow(fnn_arena *arena, int slot, size_t bytes)
{
    enum { ALIGNMENT = 64, GRANULE = 4096 };
    if (bytes > SIZE_MAX - 2 * GRANULE)
        return 0;
    size_t size = (bytes + GRANULE - 1) / GRANULE * GRANULE;
    free(arena->memory[slot]);
    arena->data[slot] = NULL;
    arena->size[slot] = 0;
    arena->memory[slot] = fnn_arena_allocate(size + ALIGNMENT);
    if (arena->memory[slot] == NULL)
        return 0;
    uintptr_t address = (uintptr_t)arena->memory[slot];
    arena->data[slot] = (void *)((address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    arena->size[slot] = size;
    return 1;
}

FNN_STATIC void *fnn_workspace(int slot, size_t bytes)
{
    fnn_arena *arena = fnn_arena_of_thread;
    if (arena == NULL) {
        arena = (fnn_arena *)calloc(1, sizeof *arena);
        if (arena == NULL)
            return NULL;
        if (!fnn_arena_register(arena)) {
            free(arena);
            return NULL;
        }
        fnn_arena_of_thread = arena;
    }
    if ((arena->data[slot] == NULL || arena->size[slot] < bytes) && !fnn_arena_grow(arena, slot, bytes))
        return NULL;
    return arena->data[slot];
}

/* The workspace while other code runs in between that may want one, and afterwards again. */
FNN_STATIC fnn_arena *fnn_arena_set_aside(void)
{
    fnn_arena *arena = fnn_arena_of_thread;
    fnn_arena_of_thread = NULL;
    return arena;
}

FNN_STATIC void fnn_arena_take_back(fnn_arena *arena)
{
    if (arena == NULL)
        return;
    if (fnn_arena_of_thread != NULL) {
        fnn_arena_free(fnn_arena_of_thread);
        fnn_arena_register(arena);
    }
    fnn_arena_of_thread = arena;
}

#endif
