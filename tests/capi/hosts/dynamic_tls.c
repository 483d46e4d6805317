/*
 * A program that ends while threads hold blocks of a library's thread-local memory, which is what makes LeakSanitizer of
 * GCC 13 and older fall (tests/nightly/test_sanitized.py); it loses one block of its own if asked to. Built twice: with
 * LIBRARY defined, the library.
 */
#include <stdlib.h>

#ifdef LIBRARY

void touch_thread_block(void);

/* 8 bytes aligned to 8, then a pointer: the block lies where the sanitizer takes what is before it for a header. */
static __thread char block[8] __attribute__((aligned(8)));
static __thread void *kept;

void touch_thread_block(void)
{
    block[0] = 1;
    kept = malloc(24);
}

#else

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

static sem_t touched;

static void *hold_block(void *touch)
{
    void (*call)(void);
    memcpy(&call, &touch, sizeof call);
    call();
    sem_post(&touched);
    pause();
    return NULL;
}

static void lose(size_t size)
{
    memset(malloc(size), 1, size);
}

int main(int count, char **words)
{
    void *library = count > 1 ? dlopen(words[1], RTLD_NOW) : NULL;
    void *touch = library ? dlsym(library, "touch_thread_block") : NULL;
    pthread_t thread;
    if (!touch || sem_init(&touched, 0, 0) || pthread_create(&thread, NULL, hold_block, touch))
        return 2;
    sem_wait(&touched);
    if (count > 2)
        lose(strlen(words[2]));
    return 0;
}

#endif
