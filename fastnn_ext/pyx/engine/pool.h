/* The pool of worker threads behind parallel.h.
 *
 * One for the process, since only one module (threads.pyx) includes this. Workers are created when they are first
 * needed and sleep when idle. Before that they stay awake for as long as it takes to wake them, in which the next kernel
 * of a network often comes, but after a few microseconds they let every other thread have the processor.
 *
 * One job has the pool at a time. A job of another Python thread runs on its own thread then: two callers on two
 * processors already use both. So does a job that is begun inside a chunk.
 *
 * Workers are not in a forked child, which therefore forgets them and makes its own at its first use. Nothing here
 * waits for a lock across a fork. Without pthreads there are no workers, and all else is the same. */
#ifndef FASTNN_POOL_H
#define FASTNN_POOL_H

#include <Python.h>
#include <fenv.h>
#include <time.h>
#include "parallel.h"

#ifndef FNN_HAS_WORKERS
#if !defined(_WIN32) && defined(__GNUC__)
#define FNN_HAS_WORKERS 1
#else
#define FNN_HAS_WORKERS 0
#endif
#endif
#if FNN_HAS_WORKERS
#include <sched.h>
#include <signal.h>
#endif

/* How long a thread with nothing to do stays awake, and how long it keeps its processor to itself of that. */
enum { FNN_POOL_AWAKE_US = 50, FNN_POOL_SPIN_US = 4, FNN_POOL_STACK = 4 << 20 };

typedef struct {
    fnn_task task;
    void *context;
    fnn_poll_function poll;
    ptrdiff_t chunks;
    ptrdiff_t next;  /* the chunk to be taken next */
    int code;        /* other than 0: the job ends, and this is why */
    int64_t asked;   /* when Python last looked for signals, in ms */
    /* of a job that has the pool, under its mutex */
    int wanted;      /* workers that may still enter */
    int inside;      /* workers that are in it */
    fenv_t floating; /* the caller's rounding and treatment of denormals */
} fnn_job;

static FNN_THREAD_LOCAL fnn_job *fnn_job_of_thread; /* whose chunk the thread is in */
static FNN_THREAD_LOCAL int fnn_is_worker;
static FNN_THREAD_LOCAL int fnn_threads_here;       /* the calling thread's number of threads; 0 where it has none */
static int fnn_threads_default = 1;
static unsigned long fnn_main_thread;               /* the one thread in which Python runs handlers of signals */

/* ---- clocks and shared numbers ---- */

static int64_t fnn_milliseconds(void)
{
#if defined(_WIN32)
    return (int64_t)GetTickCount64();
#else
    struct timespec now;
#if defined(CLOCK_MONOTONIC_COARSE)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
#endif
}

#if FNN_HAS_WORKERS
#define FNN_READ(number) __atomic_load_n(&(number), __ATOMIC_ACQUIRE)
#define FNN_WRITE(number, value) __atomic_store_n(&(number), value, __ATOMIC_RELEASE)
#define FNN_TAKE_NEXT(number) __atomic_fetch_add(&(number), 1, __ATOMIC_RELAXED)
#define FNN_LEAVE(number) __atomic_sub_fetch(&(number), 1, __ATOMIC_ACQ_REL)
#else
#define FNN_READ(number) (number)
#define FNN_WRITE(number, value) ((number) = (value))
#define FNN_TAKE_NEXT(number) ((number)++)
#endif

/* The first reason stands. */
static void fnn_job_fail(fnn_job *job, int code)
{
#if FNN_HAS_WORKERS
    int none = 0;
    __atomic_compare_exchange_n(&job->code, &none, code, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
#else
    if (job->code == 0)
        job->code = code;
#endif
}

/* ---- what every thread of a job does ---- */

/* Lets Python run its handlers. A kernel that is called in one is a job of its own. */
static int fnn_look_for_signals(void)
{
    fnn_job *const job = fnn_job_of_thread;
    fnn_job_of_thread = NULL;
    const PyGILState_STATE state = PyGILState_Ensure();
    const int raised = PyErr_CheckSignals();
    PyGILState_Release(state);
    fnn_job_of_thread = job;
    return raised;
}

static int fnn_pool_poll(void)
{
    fnn_job *const job = fnn_job_of_thread;
    if (job == NULL)
        return 0;
    /* other threads never ask Python: a daemon thread that did so while Python ends would end in the middle of a job */
    if (job->poll != NULL && !fnn_is_worker && fnn_main_thread == PyThread_get_thread_ident()) {
        const int64_t now = fnn_milliseconds();
        if (now - job->asked >= FNN_POLL_MS) {
            if (FNN_READ(job->code) == 0 && fnn_look_for_signals() < 0)
                fnn_job_fail(job, FNN_INTERRUPTED);
            job->asked = fnn_milliseconds();
        }
    }
    return FNN_READ(job->code);
}

static void fnn_job_work(fnn_job *job)
{
    fnn_job_of_thread = job;
    while (FNN_READ(job->code) == 0) {
        const ptrdiff_t chunk = FNN_TAKE_NEXT(job->next);
        if (chunk >= job->chunks)
            break;
        const int code = job->task(job->context, chunk);
        if (code != 0)
            fnn_job_fail(job, code);
        else if (job->poll != NULL)
            job->poll();
    }
    fnn_job_of_thread = NULL;
}

/* Inside a chunk of another job, whose poll this one's is then. */
static int fnn_run_nested(fnn_task task, void *context, ptrdiff_t chunks, fnn_poll_function poll)
{
    for (ptrdiff_t chunk = 0; chunk < chunks; chunk++) {
        int code = task(context, chunk);
        if (code == 0 && poll != NULL)
            code = poll();
        if (code != 0)
            return code;
    }
    return 0;
}

/* ---- workers ---- */

#if FNN_HAS_WORKERS
typedef struct fnn_worker_self { /* on the worker's stack, which never ends */
    pthread_t thread;
    const struct fnn_worker_self *next;
} fnn_worker_self;

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    int busy;          /* whether a job has the pool */
    fnn_job *job;      /* that job, once it is open to workers */
    int workers;       /* that exist */
    unsigned opened;   /* counts jobs */
    const fnn_worker_self *started; /* those of the workers that have begun */
    int avoided;       /* the processor that all of them are kept off; -1: none */
} fnn_pool_state;

static FNN_THREAD_LOCAL fnn_job *fnn_job_held; /* with which the thread has the pool */

static const fnn_pool_state fnn_new_pool = {
    .mutex = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
static fnn_pool_state fnn_state = {
    .mutex = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static int64_t fnn_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fnn_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* A moment of waiting, at first for itself, then with the processor for whoever asks for it; 0 from `end` on. */
static int fnn_stay_awake(int64_t end)
{
    const int64_t left = end - fnn_nanoseconds();
    if (left > (FNN_POOL_AWAKE_US - FNN_POOL_SPIN_US) * 1000)
        fnn_pause();
    else
        sched_yield();
    return left > 0;
}

static void *fnn_worker(void *unused)
{
    fnn_pool_state *const pool = &fnn_state;
    (void)unused;
    fnn_is_worker = 1;
    pthread_mutex_lock(&pool->mutex);
    const fnn_worker_self self = {pthread_self(), pool->started};
    pool->started = &self;
    pool->avoided = -1;
    for (;;) {
        while (pool->job == NULL || pool->job->wanted == 0)
            pthread_cond_wait(&pool->work, &pool->mutex);
        fnn_job *const job = pool->job;
        const unsigned seen = pool->opened;
        job->wanted--;
        job->inside++;
        pthread_mutex_unlock(&pool->mutex);
        fesetenv(&job->floating);
        fnn_job_work(job);
        pthread_mutex_lock(&pool->mutex);
        if (FNN_LEAVE(job->inside) == 0)
            pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->mutex);
        const int64_t end = fnn_nanoseconds() + FNN_POOL_AWAKE_US * 1000;
        while (FNN_READ(pool->opened) == seen && fnn_stay_awake(end))
            ;
        pthread_mutex_lock(&pool->mutex);
    }
    return NULL;
}

/* Makes workers up to `count`, with all signals blocked: those are for the threads of Python. Where the system gives
 * no more threads, there are fewer. */
static void fnn_pool_grow(int count)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    if (fnn_state.workers >= count || pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, FNN_POOL_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; fnn_state.workers < count; fnn_state.workers++)
        if (pthread_create(&thread, &attributes, fnn_worker, NULL) != 0)
            break;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* Keeps the workers off the caller's processor, where a woken one would wait for milliseconds until the caller is
 * through. Linux was seen to put it there in a virtual machine with another processor idle. Nothing is asked of the
 * system as long as the caller stays where it is. Needs the mutex. */
static void fnn_pool_place(void)
{
#if defined(__linux__)
    const int here = sched_getcpu();
    cpu_set_t others;
    if (here == fnn_state.avoided || here < 0 || here >= CPU_SETSIZE
        || pthread_getaffinity_np(pthread_self(), sizeof others, &others) != 0)
        return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0)
        return;
    for (const fnn_worker_self *worker = fnn_state.started; worker != NULL; worker = worker->next)
        pthread_setaffinity_np(worker->thread, sizeof others, &others);
    fnn_state.avoided = here;
#endif
}

static void fnn_pool_open(fnn_job *job, int helpers)
{
    fnn_pool_state *const pool = &fnn_state;
    fegetenv(&job->floating);
    pthread_mutex_lock(&pool->mutex);
    fnn_pool_grow(helpers);
    fnn_pool_place();
    helpers = helpers < pool->workers ? helpers : pool->workers;
    job->wanted = helpers;
    pool->job = fnn_job_held = job;
    FNN_WRITE(pool->opened, pool->opened + 1);
    pthread_mutex_unlock(&pool->mutex);
    while (helpers-- > 0)
        pthread_cond_signal(&pool->work);
}

/* Until the workers are out, and at most FNN_POLL_MS. Needs the mutex. */
static void fnn_pool_wait(const fnn_job *job)
{
    struct timespec until;
    if (job->inside == 0)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += FNN_POLL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&fnn_state.done, &fnn_state.mutex, &until);
}

static void fnn_pool_spin(const fnn_job *job)
{
    const int64_t end = fnn_nanoseconds() + FNN_POOL_AWAKE_US * 1000;
    while (FNN_READ(job->inside) > 0 && fnn_stay_awake(end))
        ;
}

/* Lets nobody in any more and waits, with a look for signals now and then, until all are out. */
static void fnn_pool_close(fnn_job *job)
{
    fnn_pool_state *const pool = &fnn_state;
    pthread_mutex_lock(&pool->mutex);
    job->wanted = 0;
    pthread_mutex_unlock(&pool->mutex);
    fnn_pool_spin(job);
    pthread_mutex_lock(&pool->mutex);
    while (job->inside > 0) {
        fnn_pool_wait(job);
        pthread_mutex_unlock(&pool->mutex);
        fnn_job_of_thread = job;
        if (job->poll != NULL)
            job->poll();
        fnn_job_of_thread = NULL;
        pthread_mutex_lock(&pool->mutex);
    }
    if (pool->job == job) { /* unless this is a child by now, whose pool is another one */
        pool->job = NULL;
        FNN_WRITE(pool->busy, 0);
    }
    fnn_job_held = NULL;
    pthread_mutex_unlock(&pool->mutex);
}

/* A handler of a signal may fork in the middle of its thread's job. The workers finish the job before that, since they
 * are not in the child, which goes on with it. */
static void fnn_before_fork(void)
{
    fnn_job *const job = fnn_job_held;
    if (job == NULL)
        return;
    pthread_mutex_lock(&fnn_state.mutex);
    job->wanted = 0;
    while (job->inside > 0)
        fnn_pool_wait(job);
    pthread_mutex_unlock(&fnn_state.mutex);
}

static void fnn_in_child(void)
{
    fnn_state = fnn_new_pool;
    fnn_main_thread = PyThread_get_thread_ident();
}
#endif

/* ---- entry points ---- */

static int fnn_pool_run(fnn_task task, void *context, ptrdiff_t chunks, int threads, fnn_poll_function poll)
{
    if (fnn_job_of_thread != NULL)
        return fnn_run_nested(task, context, chunks, poll);
    fnn_job job;
    memset(&job, 0, sizeof job);
    job.task = task, job.context = context, job.chunks = chunks, job.poll = poll;
    job.asked = fnn_milliseconds();
    if (threads > chunks)
        threads = (int)chunks;
#if FNN_HAS_WORKERS
    int free_ = 0;
    if (threads > 1
        && __atomic_compare_exchange_n(&fnn_state.busy, &free_, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        fnn_pool_open(&job, threads - 1);
        fnn_job_work(&job);
        fnn_pool_close(&job);
        return job.code;
    }
#endif
    fnn_job_work(&job);
    return job.code;
}

static int fnn_pool_threads(void)
{
    return fnn_threads_here > 0 ? fnn_threads_here : FNN_READ(fnn_threads_default);
}

static int fnn_pool_workers(void)
{
#if FNN_HAS_WORKERS
    return FNN_READ(fnn_state.workers);
#else
    return 0;
#endif
}

/* Once, when the module is imported; `main_thread` is Python's. */
static void fnn_pool_prepare(unsigned long main_thread)
{
    fnn_main_thread = main_thread;
#if FNN_HAS_WORKERS
    pthread_atfork(fnn_before_fork, NULL, fnn_in_child);
#endif
}

static const fnn_pool_functions fnn_the_pool = {fnn_pool_run, fnn_pool_poll, fnn_pool_threads};

#endif
