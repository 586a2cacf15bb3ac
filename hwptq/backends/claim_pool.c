/* Threads that share the work of one kernel after another.

   A kernel is cut into POOL_PARTS parts. Every thread, the calling one too, claims one by compare-and-swap until
   none is left, so the caller never waits for a thread that has not begun: where the other cores are busy it
   does all parts itself. A thread begins with its own parts, the same in every kernel, so that what it wrote is
   still in the cache of its core. Between kernels the threads spin for a while, then sleep.

   ticket = number of the launch << 32 | a bit for each part that nobody has claimed. Work is written before the
   ticket, and not before all parts of the launch before it are done; so a thread whose swap succeeds has read
   the work of that very launch.

   Include it with POOL_THREADS defined, the most threads there can be: 16 or fewer. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define POOL_PARTS (2 * POOL_THREADS)
#define POOL_ALL ((uint32_t)((UINT64_C(1) << POOL_PARTS) - 1))
#define POOL_SPINS 20000

typedef struct {
    void *sync;
    int32_t parts;
} Group; /* TVMParallelGroupEnv */
typedef int (*Task)(int, Group *, void *);

static struct {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic int pending; /* parts that are not done */
    _Alignas(64) _Atomic int failed;
    _Atomic(Task) task;
    _Atomic(void *) data;
    _Alignas(64) _Atomic int sleeping;
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    int threads;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};

static void pool_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int pool_has_work(void) {
    return (uint32_t)atomic_load(&pool.ticket) != 0;
}

/* Do parts until none is left, those from `first` on before the others. */
static void pool_work(int first) {
    for (;;) {
        uint64_t ticket = atomic_load(&pool.ticket);
        uint32_t left = (uint32_t)ticket, preferred = left >> first << first;
        if (!left) return;
        int part = __builtin_ctz(preferred ? preferred : left);
        Task task = atomic_load_explicit(&pool.task, memory_order_relaxed);
        void *data = atomic_load_explicit(&pool.data, memory_order_relaxed);
        if (!atomic_compare_exchange_strong(&pool.ticket, &ticket, ticket & ~(UINT64_C(1) << part))) continue;
        Group group = {0, POOL_PARTS};
        if (task(part, &group, data)) atomic_store(&pool.failed, 1);
        atomic_fetch_sub(&pool.pending, 1);
    }
}

static void *pool_thread(void *number) {
    for (;;) {
        int spins = 0;
        while (!pool_has_work() && spins++ < POOL_SPINS) pool_pause();
        if (!pool_has_work()) {
            pthread_mutex_lock(&pool.mutex);
            atomic_fetch_add(&pool.sleeping, 1);
            while (!pool_has_work()) pthread_cond_wait(&pool.woken, &pool.mutex);
            atomic_fetch_sub(&pool.sleeping, 1);
            pthread_mutex_unlock(&pool.mutex);
        }
        pool_work(2 * (int)(intptr_t)number);
    }
    return 0;
}

/* Called by a kernel: run all parts of `task`. Returns 0, or -1 where one failed. */
static int pool_launch(Task task, void *data, int unused) {
    (void)unused;
    if (pool.threads < 2) {
        Group group = {0, 1};
        return task(0, &group, data);
    }
    atomic_store_explicit(&pool.task, task, memory_order_relaxed);
    atomic_store_explicit(&pool.data, data, memory_order_relaxed);
    atomic_store_explicit(&pool.failed, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.pending, POOL_PARTS, memory_order_relaxed);
    uint64_t launch = (atomic_load(&pool.ticket) >> 32) + 1;
    atomic_store(&pool.ticket, launch << 32 | POOL_ALL);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.woken);
        pthread_mutex_unlock(&pool.mutex);
    }
    pool_work(0);
    for (int spins = 0; atomic_load(&pool.pending); spins++)
        if (spins < POOL_SPINS / 10) pool_pause();
        else sched_yield();
    return atomic_load(&pool.failed) ? -1 : 0;
}

/* Start threads, once, so that `count` of them work, the calling one included. Returns how many there are. */
static int pool_start(int count) {
    if (!pool.threads) pool.threads = 1;
    while (pool.threads < count && pool.threads < POOL_THREADS) {
        pthread_t thread;
        if (pthread_create(&thread, 0, pool_thread, (void *)(intptr_t)pool.threads)) break;
        pthread_detach(thread);
        pool.threads++;
    }
    return pool.threads;
}
