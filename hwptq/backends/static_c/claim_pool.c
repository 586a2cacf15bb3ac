/* Threads that go through the kernels of a model side by side.

   Every thread, the calling one too, makes all the calls of an inference (`pool_calls`). A kernel that they share
   is cut into one part for each of them: a thread claims its part by compare-and-swap, computes it, and waits
   until all parts are done. So nobody hands out work: a kernel costs the way of one cache line between cores and
   back. Other kernels are the calling thread's alone; the others wait until it comes to the next shared one.
   Which those are depends on how far apart the cores are, which is measured again and again.

   The calling thread never waits for one that has not begun: it takes that one's part as well. A thread that
   comes late finds nothing left to claim and catches up. One that shares its core with another program could be
   put aside in the middle of its part, when all have to wait; where that happens it stays away for a while.

   Shared kernels are counted from the start of the program: kernel k has a part for thread t left if and only
   if claimed[t] == k, and is done when all threads together have done (k + 1) * threads parts. No part of a
   kernel is claimed before the kernel ahead of it is done, hence a thread that claims one has read the arguments
   of that very inference.

   Include it with POOL_THREADS defined, the most threads there can be; POOL_MOST, the cycles of the longest kernel
   that can be shared; and POOL_INPUTS and POOL_OUTPUTS of the model. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

#define POOL_LINE 128       /* bytes that travel between cores together */
#define POOL_WORTH 3        /* cycles of a kernel for each nanosecond to another core and back: sharing pays */
#define POOL_FAR 500        /* nanoseconds to another core and back, where that is not known */
#define POOL_MEASURED 50000000 /* nanoseconds that a measurement of it holds */
#define POOL_GRACE 64       /* looks at an unfinished kernel before parts of others are claimed */
#define POOL_PATIENCE 2000  /* looks before the core is offered to others */
#define POOL_SPINS 20000    /* looks for the next inference before a thread sleeps */
/* nanoseconds that a thread stays away from a core with other users: at first, and at most */
#define POOL_AWAY_LEAST 4000000
#define POOL_AWAY_MOST 512000000
#define POOL_FREE 20000000  /* nanoseconds that a thread worked without being put aside: its core is free */

typedef struct {
    void *sync;
    int32_t parts;
} Group; /* TVMParallelGroupEnv */
typedef int (*Task)(int, Group *, void *);

/* All calls of an inference, each behind `if (pool_mine(its cycles))`. */
static int32_t pool_calls(const void *const *inputs, void *const *outputs, uint8_t *arena);

static struct {
    struct {
        _Alignas(POOL_LINE) _Atomic uint64_t claimed; /* kernels whose part for this thread is claimed */
        _Alignas(POOL_LINE) _Atomic uint64_t done;    /* parts that this thread has done */
    } of[POOL_THREADS];
    _Alignas(POOL_LINE) _Atomic uint64_t reached; /* kernels that the calling thread has come to */
    _Alignas(POOL_LINE) _Atomic uint64_t inferences; /* begun */
    _Atomic(const void *) inputs[POOL_INPUTS];
    _Atomic(void *) outputs[POOL_OUTPUTS];
    _Atomic(uint8_t *) arena;
    _Atomic uint64_t first;  /* kernels that were shared before this inference */
    _Atomic int64_t least;   /* cycles of a kernel that is worth sharing */
    _Alignas(POOL_LINE) _Atomic uint64_t asked; /* a thread … */
    _Alignas(POOL_LINE) _Atomic uint64_t answered; /* … answers, so that the way there and back can be measured */
    _Alignas(POOL_LINE) _Atomic int sleeping;
    _Atomic int failed;
    pthread_mutex_t turn; /* of the inferences of several callers */
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    _Atomic int threads;
    uint64_t kernels; /* shared so far; the calling thread's, whichever that is */
} pool = {.turn = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER, .threads = 1,
          .least = POOL_WORTH * POOL_FAR};

/* What this thread is at. */
static _Thread_local struct {
    int thread;      /* 0 is the calling one */
    int alone;       /* at a kernel that is not shared, or after one */
    int helped;      /* the last kernel had parts that others had not begun */
    int64_t least;   /* cycles of a kernel that is worth sharing */
    uint64_t kernel; /* the next shared one */
} at;

static int pool_threads(void) {
    return atomic_load_explicit(&pool.threads, memory_order_relaxed);
}

static void pool_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One more look at something that is not so yet. */
static void pool_look(int looks) {
    if (looks < POOL_PATIENCE) pool_pause();
    else sched_yield();
}

/* Whether this thread makes the call of a kernel of so many cycles; 0: one that can't be shared. */
static int pool_mine(int64_t cycles) {
    if (!cycles || cycles < at.least) {
        at.alone = 1;
        return at.thread == 0;
    }
    if (at.alone && at.thread == 0) {
        at.alone = 0;
        atomic_store_explicit(&pool.reached, at.kernel + 1, memory_order_release);
    }
    return 1;
}

/* Claim and do the part of thread `owner`, where it is left. */
static int pool_take(int owner, uint64_t kernel, Task task, Group *group, void *data) {
    uint64_t left = kernel;
    _Atomic uint64_t *claimed = &pool.of[owner].claimed, *done = &pool.of[at.thread].done;
    if (atomic_load_explicit(claimed, memory_order_relaxed) != kernel) return 0;
    if (!atomic_compare_exchange_strong(claimed, &left, kernel + 1)) return 0;
    if (task(owner, group, data)) atomic_store(&pool.failed, 1);
    /* nobody else writes it */
    atomic_store_explicit(done, atomic_load_explicit(done, memory_order_relaxed) + 1, memory_order_release);
    return 1;
}

static int pool_done(uint64_t kernel) {
    uint64_t sum = 0;
    int threads = pool_threads();
    for (int i = 0; i < threads; i++) sum += atomic_load_explicit(&pool.of[i].done, memory_order_acquire);
    return sum >= (kernel + 1) * (uint64_t)threads;
}

/* Called by a kernel that is cut into parts. Returns 0, or another value where one failed that nobody shares. */
static int pool_launch(Task task, void *data, int unused) {
    (void)unused;
    if (at.alone && at.thread == 0) { /* one thread, or not worth sharing */
        Group group = {0, 1};
        return task(0, &group, data);
    }
    Group group = {0, pool_threads()};
    uint64_t kernel = at.kernel++;
    for (int looks = 0; at.alone && atomic_load_explicit(&pool.reached, memory_order_acquire) <= kernel; looks++)
        pool_look(looks);
    at.alone = 0;
    pool_take(at.thread, kernel, task, &group, data);
    for (int looks = at.helped ? POOL_GRACE : 0; !pool_done(kernel); looks++) {
        if (looks == POOL_GRACE) {
            at.helped = 0;
            for (int i = 0; i < group.parts; i++) at.helped |= pool_take(i, kernel, task, &group, data);
        }
        pool_look(looks);
    }
    return 0;
}

/* How often this thread had to leave its core to another. */
static long pool_put_aside(void) {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nivcsw;
}

static int64_t pool_time(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t pool_now(void) {
    return pool_time(CLOCK_MONOTONIC);
}

/* Stay away from a core that others use too: twice as long as the time before, unless it was free in between. */
static void pool_stay_away(void) {
    static _Thread_local int64_t since, length;
    int64_t worked = pool_time(CLOCK_THREAD_CPUTIME_ID) - since;
    length = !length || worked > POOL_FREE ? POOL_AWAY_LEAST : 2 * length;
    if (length > POOL_AWAY_MOST) length = POOL_AWAY_MOST;
    struct timespec time = {0, length};
    nanosleep(&time, 0);
    since = pool_time(CLOCK_THREAD_CPUTIME_ID);
}

/* Wait for the inference after number `seen`; returns its number. */
static uint64_t pool_next(uint64_t seen) {
    for (int looks = 0; atomic_load(&pool.inferences) == seen && looks < POOL_SPINS; looks++) {
        uint64_t asked = atomic_load(&pool.asked);
        if (at.thread == 1 && asked != atomic_load_explicit(&pool.answered, memory_order_relaxed))
            atomic_store(&pool.answered, asked);
        pool_pause();
    }
    if (atomic_load(&pool.inferences) == seen) {
        pthread_mutex_lock(&pool.mutex);
        atomic_fetch_add(&pool.sleeping, 1);
        while (atomic_load(&pool.inferences) == seen) pthread_cond_wait(&pool.woken, &pool.mutex);
        atomic_fetch_sub(&pool.sleeping, 1);
        pthread_mutex_unlock(&pool.mutex);
    }
    return atomic_load(&pool.inferences);
}

/* Nanoseconds to another core and back, the least of a few tries; 0 where nobody answers. */
static int64_t pool_distance(void) {
    int64_t least = 0;
    for (int tries = 0; tries < 8; tries++) {
        int64_t start = pool_now(), end;
        uint64_t asked = atomic_fetch_add(&pool.asked, 1) + 1;
        while (atomic_load(&pool.answered) != asked)
            if (pool_now() - start > 10 * POOL_FAR) return 0;
        end = pool_now();
        if (!least || end - start < least) least = end - start;
    }
    return least;
}

/* Decide what is worth sharing from now on, where that was long ago. */
static void pool_measure(void) {
    static int64_t next;
    int64_t now = pool_now();
    if (now < next) return;
    int64_t distance = pool_distance();
    if (distance) atomic_store(&pool.least, POOL_WORTH * distance);
    next = now + (distance ? POOL_MEASURED : POOL_MEASURED / 50);
}

static void *pool_thread(void *number) {
    uint64_t inference = atomic_load(&pool.inferences);
    long before = pool_put_aside();
    at.thread = (int)(intptr_t)number;
    for (;;) {
        const void *inputs[POOL_INPUTS];
        void *outputs[POOL_OUTPUTS];
        inference = pool_next(inference);
        for (int i = 0; i < POOL_INPUTS; i++)
            inputs[i] = atomic_load_explicit(&pool.inputs[i], memory_order_relaxed);
        for (int i = 0; i < POOL_OUTPUTS; i++)
            outputs[i] = atomic_load_explicit(&pool.outputs[i], memory_order_relaxed);
        at.kernel = atomic_load_explicit(&pool.first, memory_order_relaxed);
        at.least = atomic_load_explicit(&pool.least, memory_order_relaxed);
        at.alone = 0;
        pool_calls(inputs, outputs, atomic_load_explicit(&pool.arena, memory_order_relaxed));
        long now = pool_put_aside();
        if (now != before) pool_stay_away();
        before = now;
    }
    return 0;
}

/* One inference, by all threads. */
static int32_t pool_share(const void *const *inputs, void *const *outputs, uint8_t *arena) {
    pool_measure();
    for (int i = 0; i < POOL_INPUTS; i++)
        atomic_store_explicit(&pool.inputs[i], inputs[i], memory_order_relaxed);
    for (int i = 0; i < POOL_OUTPUTS; i++)
        atomic_store_explicit(&pool.outputs[i], outputs[i], memory_order_relaxed);
    atomic_store_explicit(&pool.arena, arena, memory_order_relaxed);
    atomic_store_explicit(&pool.first, pool.kernels, memory_order_relaxed);
    atomic_store(&pool.failed, 0);
    at.kernel = pool.kernels;
    at.least = atomic_load(&pool.least);
    at.alone = 0;
    atomic_fetch_add(&pool.inferences, 1);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.woken);
        pthread_mutex_unlock(&pool.mutex);
    }
    int32_t failed = pool_calls(inputs, outputs, arena);
    pool.kernels = at.kernel;
    return failed ? failed : atomic_load(&pool.failed);
}

/* One inference. Returns 0, or another value where a kernel failed. Callers that share the pool take turns. */
static int32_t pool_run(const void *const *inputs, void *const *outputs, uint8_t *arena) {
    if (pool_threads() < 2) {
        at.least = INT64_MAX;
        return pool_calls(inputs, outputs, arena);
    }
    pthread_mutex_lock(&pool.turn);
    int32_t failed = pool_share(inputs, outputs, arena);
    pthread_mutex_unlock(&pool.turn);
    return failed;
}

/* Start threads so that `count` of them work, the calling one included; not during an inference. Returns how many
   there are. */
static int pool_start(int count) {
    for (int threads = pool_threads(); POOL_MOST && threads < count && threads < POOL_THREADS; threads++) {
        pthread_t thread;
        atomic_store(&pool.of[threads].claimed, pool.kernels);
        atomic_store(&pool.of[threads].done, pool.kernels);
        if (pthread_create(&thread, 0, pool_thread, (void *)(intptr_t)threads)) break;
        pthread_detach(thread);
        atomic_store(&pool.threads, threads + 1);
    }
    return pool_threads();
}
