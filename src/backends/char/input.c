/*
 * input.c - a buffer between what arrives and what the front end takes
 */
#include "backends/char/internal.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t char_input_room(const struct char_input *input)
{
    return CHAR_INPUT_SIZE - input->count;
}

bool char_input_add(struct char_input *input, uint8_t byte)
{
    if (!char_input_room(input))
        return false;
    input->data[(input->head + input->count++) % CHAR_INPUT_SIZE] = byte;
    return true;
}

/*
 * The bytes leave the buffer before the front end sees them, because it may call
 * accept_input, and so come here again, while it receives.
 */
void char_input_push(struct char_input *input)
{
    while (input->count) {
        size_t size = smaller(input->count, CHAR_INPUT_SIZE - input->head);
        const uint8_t *data = input->data + input->head;

        size = smaller(size, chardev_room(input->chardev));
        if (!size)
            return;
        input->head = (input->head + size) % CHAR_INPUT_SIZE;
        input->count -= size;
        chardev_deliver(input->chardev, data, size);
    }
}
