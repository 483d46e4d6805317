/* Makes and finds handles: numbers of an index into a table, and how often the entry was used before. No handle that a
   caller passes is used as an address. */
#include <stdlib.h>

#include "internal.h"

/* A handle's bits: 63..32 generation, 31..4 index, 3..0 kind. */
#define INDEX_SHIFT      4
#define GENERATION_SHIFT 32
#define KIND_MASK        15u
#define CHUNK_ENTRIES    256u
#define CHUNKS           4096u /* a million handles at a time */

struct entry {
    void *object;
    uint32_t generation;
    uint32_t take_count;
    uint32_t next_free; /* index + 1; 0: none */
    uint8_t kind;       /* 0: free */
    bool is_shut;
};

pthread_mutex_t ndp_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t was_dropped = PTHREAD_COND_INITIALIZER;
static struct entry *chunks[CHUNKS]; /* never freed: entries keep their generation */
static uint32_t entry_count, first_free;

_Static_assert(sizeof(void *) == 8, "handles need 64 bits");

static struct entry *get_entry(uint32_t index)
{
    return &chunks[index / CHUNK_ENTRIES][index % CHUNK_ENTRIES];
}

static struct entry *find_entry(const void *handle, uint32_t *index)
{
    *index = (uint32_t)((uintptr_t)handle & 0xffffffffu) >> INDEX_SHIFT;
    return *index < entry_count ? get_entry(*index) : NULL;
}

/* Tell whether this handle may have been made for the entry; the kind of older generations is not known. */
static bool was_made(const void *handle, enum ndp_kind kind, uint32_t generation, const struct entry *entry)
{
    if (((uintptr_t)handle & KIND_MASK) != (uintptr_t)kind || generation == 0 || generation > entry->generation)
        return false;
    return generation < entry->generation || entry->kind == 0 || entry->kind == kind;
}

/* Return the entry of a handle that was made for `kind` and not shut, or NULL with the reason. */
static struct entry *find_open(const void *handle, enum ndp_kind kind, ndp_rt_status *status)
{
    const char *what = kind == NDP_INSPECTOR ? "inspector" : "job";
    const char *maker = kind == NDP_INSPECTOR ? "open" : "submit";
    uint32_t generation = (uint32_t)((uintptr_t)handle >> GENERATION_SHIFT), index;
    struct entry *entry = find_entry(handle, &index);

    if (!handle)
        *status =
            ndp_fail(NDP_RT_STATUS_HANDLE, "%s: expected a handle from ndp_rt_inspector_%s, got NULL.", what, maker);
    else if (!entry || !was_made(handle, kind, generation, entry))
        *status = ndp_fail(NDP_RT_STATUS_HANDLE, "%s: expected a handle from ndp_rt_inspector_%s, got %p.", what, maker,
                           handle);
    else if (generation < entry->generation || !entry->kind || entry->is_shut)
        *status = kind == NDP_INSPECTOR
                      ? ndp_fail(NDP_RT_STATUS_CLOSED, "the inspector is closed; open another.")
                      : ndp_fail(NDP_RT_STATUS_CLOSED, "the job has been waited for, or its inspector closed.");
    else
        return entry;
    return NULL;
}

/* Return a free entry's index, or -1 without memory. */
static int64_t find_free(void)
{
    uint32_t index;

    if (first_free) {
        index = first_free - 1;
        first_free = get_entry(index)->next_free;
        return index;
    }
    if (entry_count % CHUNK_ENTRIES == 0) {
        struct entry *chunk = entry_count / CHUNK_ENTRIES < CHUNKS ? calloc(CHUNK_ENTRIES, sizeof *chunk) : NULL;

        if (!chunk)
            return -1;
        chunks[entry_count / CHUNK_ENTRIES] = chunk;
    }
    return entry_count++;
}

void *ndp_handle_make(enum ndp_kind kind, void *object)
{
    struct entry *entry;
    void *handle = NULL;
    int64_t index;

    pthread_mutex_lock(&ndp_lock);
    index = find_free();
    if (index >= 0) {
        entry = get_entry((uint32_t)index);
        *entry = (struct entry){.object = object,
                                .generation = entry->generation == UINT32_MAX ? 1 : entry->generation + 1,
                                .kind = (uint8_t)kind};
        handle = (void *)((uintptr_t)entry->generation << GENERATION_SHIFT | (uintptr_t)index << INDEX_SHIFT
                          | (uintptr_t)kind);
    }
    pthread_mutex_unlock(&ndp_lock);
    return handle;
}

/* Find a handle's object, and shut the handle or count one more who uses it. */
static ndp_rt_status find_object(const void *handle, enum ndp_kind kind, bool shuts, void **object)
{
    ndp_rt_status status = ndp_check_process();
    struct entry *entry;

    if (status != NDP_RT_STATUS_OK)
        return status;
    pthread_mutex_lock(&ndp_lock);
    entry = find_open(handle, kind, &status);
    if (entry) {
        entry->is_shut = shuts;
        entry->take_count += !shuts;
        *object = entry->object;
    }
    pthread_mutex_unlock(&ndp_lock);
    return status;
}

ndp_rt_status ndp_handle_take(const void *handle, enum ndp_kind kind, void **object)
{
    return find_object(handle, kind, false, object);
}

ndp_rt_status ndp_handle_shut(const void *handle, enum ndp_kind kind, void **object)
{
    return find_object(handle, kind, true, object);
}

void ndp_handle_drop(const void *handle)
{
    uint32_t index;
    struct entry *entry;

    pthread_mutex_lock(&ndp_lock);
    entry = find_entry(handle, &index);
    if (--entry->take_count == 0 && entry->is_shut)
        pthread_cond_broadcast(&was_dropped);
    pthread_mutex_unlock(&ndp_lock);
}

void ndp_handle_free(const void *handle)
{
    uint32_t index;
    struct entry *entry;

    pthread_mutex_lock(&ndp_lock);
    entry = find_entry(handle, &index);
    while (entry->take_count > 0)
        ndp_wait(&was_dropped, &ndp_lock);
    entry->kind = 0;
    entry->object = NULL;
    entry->next_free = first_free;
    first_free = index + 1;
    pthread_mutex_unlock(&ndp_lock);
}
