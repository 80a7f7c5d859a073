/* How kernels use the threads of the process: jobs that are cut into chunks.
 *
 *     int fnn_run(fnn_task task, void *context, ptrdiff_t chunks, int threads)
 *
 * runs task(context, 0) ... task(context, chunks - 1), each once, on the calling thread and on up to `threads - 1`
 * workers, and returns when all have ended: 0, or the first code other than 0 that a task has returned, after which no
 * chunk is begun. Which thread runs which chunk is not defined. Chunks write disjoint memory, and no number in a result
 * may depend on where the chunks end: then results are the same bits for any number of threads.
 *
 *     int fnn_poll(void)
 *
 * asks inside a chunk that takes long whether to give up: 0, or the code to return. fnn_run asks between chunks. Where
 * Python's main thread asks, Python looks for signals at most every FNN_POLL_MS, so Ctrl-C ends a long kernel:
 * FNN_INTERRUPTED, with Python's exception set. Ask often enough: each few milliseconds.
 *
 * The pool itself (pool.h) is compiled once, in the module fastnn_ext.baseline.threads. Each other module takes its
 * functions from there when it is imported; one that has not taken them runs its chunks on the calling thread. */
#ifndef FASTNN_PARALLEL_H
#define FASTNN_PARALLEL_H

#include "arena.h"

enum { FNN_NO_MEMORY = -1, FNN_INTERRUPTED = -2, FNN_POLL_MS = 50 };

typedef int (*fnn_task)(void *context, ptrdiff_t chunk);
typedef int (*fnn_poll_function)(void);

typedef struct {
    /* the poll is what asks between chunks; NULL for a job that always runs to its end */
    int (*run)(fnn_task task, void *context, ptrdiff_t chunks, int threads, fnn_poll_function poll);
    int (*poll)(void);
    int (*threads)(void); /* that a job of the calling thread may use */
} fnn_pool_functions;

static const fnn_pool_functions *fnn_pool;

/* A signal's handler is Python code, which may call kernels: those must not find the workspace of this one. */
FNN_STATIC int fnn_poll(void)
{
    if (fnn_pool == NULL)
        return 0;
    fnn_arena *arena = fnn_arena_set_aside();
    const int code = fnn_pool->poll();
    fnn_arena_take_back(arena);
    return code;
}

FNN_STATIC int fnn_run_alone(fnn_task task, void *context, ptrdiff_t chunks)
{
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        const int code = task(context, chunk);
        if (code != 0)
            return code;
    }
    return 0;
}

FNN_STATIC int fnn_run(fnn_task task, void *context, ptrdiff_t chunks, int threads)
{
    if (fnn_pool == NULL)
        return fnn_run_alone(task, context, chunks);
    return fnn_pool->run(task, context, chunks, threads, fnn_poll);
}

/* The same for what must not stop half-way. */
FNN_STATIC int fnn_run_to_end(fnn_task task, void *context, ptrdiff_t chunks, int threads)
{
    if (fnn_pool == NULL)
        return fnn_run_alone(task, context, chunks);
    return fnn_pool->run(task, context, chunks, threads, NULL);
}

/* As many threads as may be used, where each has work of at least `share`; 1 where there is less than two shares. */
FNN_STATIC int fnn_team(double work, double share)
{
    if (work < 2 * share || fnn_pool == NULL)
        return 1;
    const int allowed = fnn_pool->threads();
    return work / share < allowed ? (int)(work / share) : allowed;
}

#endif
