/* Hostile arguments. Whatever they point to is as long as they claim, and lasts until free_blocks(). */
#ifndef STRUCTS_H
#define STRUCTS_H

#include "bytes.h"
#include "ndp_rt.h"

void *make_block(size_t size);
int has_room(void); /* for one more step */
void free_blocks(void);

const char *take_text(struct bytes *bytes, const char *usual);
void *shorten(struct bytes *bytes, const void *whole, size_t size);
int has_flaw(const ndp_rt_image *image);
ndp_rt_image *take_image(struct bytes *bytes, int may_be_null);
ndp_rt_result *take_result(struct bytes *bytes, const ndp_rt_image *image, int may_be_null);

#endif
