/*
 * fuzz_options.c - what people write: command lines, properties, CPU models, trace patterns
 *
 * The first byte chooses what is tried, the second how; the rest is text. Claims:
 * - what is refused leaves an error with a text, and nothing allocated;
 * - properties that were taken are taken again when written out, and give the same values;
 * - a number is what the digits say, with its suffix and within its limit;
 * - the nearest word is one of the candidates, and no other is nearer if it is equal.
 */
#include "base/log.h"
#include "cli/cli.h"
#include "fuzz_device.h"
#include "trapeze/property.h"
#include "x86/features.h"

#define TEXT_BYTES 1024
#define WORDS      24

static FILE *nowhere;

static void check_error(int ret, const struct error *err)
{
    FUZZ_CLAIM(!ret == !err->code);
    FUZZ_CLAIM(!ret || (err->text[0] && memchr(err->text, 0, sizeof(err->text))));
}

/* ---- command lines ---- */

static unsigned split(char *text, char separator, char *words[WORDS + 1])
{
    unsigned count = 0;

    while (text && count < WORDS) {
        words[count++] = text;
        text = strchr(text, separator);
        if (text)
            *text++ = '\0';
    }
    words[count] = NULL;
    return count;
}

static void check_operands(const struct cli_verb *verb, const struct cli_texts *operands)
{
    FUZZ_CLAIM(operands->count >= verb->min_operands && operands->count <= verb->max_operands);
    for (size_t i = 0; i < operands->count; i++)
        FUZZ_CLAIM(operands->items[i]);
}

/* Words are lines, so that a value can have spaces. */
static void fuzz_words(unsigned how, char *text)
{
    static uint64_t object[128]; /* larger than any verb's options */
    const struct cli_verb *verb = cli_verbs;
    struct cli_texts operands;
    struct error err = {0};
    char *words[WORDS + 1];
    int result;

    for (unsigned i = how % 16; i && verb[1].name; i--)
        verb++;
    split(text, '\n', words);
    result = cli_parse(verb, object, words, &operands, &err);
    check_error(result < 0 ? result : 0, &err);
    if (result != CLI_PARSED)
        return;
    check_operands(verb, &operands);
    cli_texts_free(&operands);
    cli_options_free(verb->options, object);
}

static void fuzz_completion(unsigned how, char *text)
{
    char *words[WORDS + 1];
    unsigned count = split(text, '\n', words);

    if (how & 1)
        words[how / 2 % (count + 1)] = NULL;
    cli_complete(nowhere, words);
}

/* ---- properties ---- */

struct thing {
    bool flag;
    uint8_t small;
    uint16_t port;
    uint32_t word;
    uint64_t size_bytes;
    char *path, *other;
    void *peer;
};

static const struct property thing_properties[] = {
    PROPERTY_BOOL(struct thing, flag, true, "flag"),
    PROPERTY_U8(struct thing, small, 7, "small"),
    PROPERTY_U16(struct thing, port, 0x3f8, "port"),
    PROPERTY_U32(struct thing, word, 0, "word"),
    PROPERTY_U64(struct thing, size_bytes, 1 << 20, "size"),
    PROPERTY_STRING(struct thing, path, "none", "path"),
    PROPERTY_STRING(struct thing, other, NULL, "other"),
    PROPERTY_POINTER(struct thing, peer, "peer"),
    PROPERTY_END,
};

static void put_text(FILE *out, const char *name, const char *text)
{
    if (!text)
        return;
    fprintf(out, ",%s=", name);
    for (; *text; text++)
        fprintf(out, *text == ',' ? ",," : "%c", *text);
}

static bool equal_texts(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static void check_written_out(const struct thing *a)
{
    struct thing b;
    struct error err = {0};
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    fprintf(out, "flag=%s,small=0x%x,port=%u,word=0x%X,size-bytes=%llu", a->flag ? "yes" : "Off",
            a->small, a->port, a->word, (unsigned long long)a->size_bytes);
    put_text(out, "path", a->path);
    put_text(out, "other", a->other);
    fclose(out);
    FUZZ_CLAIM(properties_init(thing_properties, &b, &err) == 0);
    FUZZ_CLAIM(properties_parse(thing_properties, &b, text, &err) == 0);
    FUZZ_CLAIM(a->flag == b.flag && a->small == b.small && a->port == b.port && a->word == b.word);
    FUZZ_CLAIM(a->size_bytes == b.size_bytes && !b.peer);
    FUZZ_CLAIM(equal_texts(a->path, b.path) && equal_texts(a->other, b.other));
    properties_done(thing_properties, &b);
    free(text);
}

static void fuzz_properties(unsigned how, char *text)
{
    struct thing thing;
    struct error err = {0};
    int ret;

    (void)how;
    FUZZ_CLAIM(properties_init(thing_properties, &thing, &err) == 0);
    ret = properties_parse(thing_properties, &thing, text, &err);
    check_error(ret, &err);
    FUZZ_CLAIM(!thing.peer);
    if (!ret)
        check_written_out(&thing);
    properties_done(thing_properties, &thing);
}

/* Of any device; what its attach would say to the values is the device's target. */
static void fuzz_device_properties(unsigned how, char *text)
{
    const struct device_class *const *class = device_classes;
    struct error err = {0};
    void *object;

    for (unsigned i = how; i && class[1]; i--)
        class ++;
    object = calloc(1, (*class)->instance_size);
    FUZZ_CLAIM(properties_init((*class)->properties, object, &err) == 0);
    check_error(properties_parse((*class)->properties, object, text, &err), &err);
    properties_done((*class)->properties, object);
    free(object);
}

static void fuzz_number(unsigned how, char *text)
{
    static const char suffixes[] = "KMGT";
    uint64_t max = UINT64_MAX >> how % 64, value = 0, digits;
    struct error err = {0};
    bool hex = text[0] == '0' && (text[1] | 0x20) == 'x';
    char *end;
    const char *suffix;

    check_error(property_parse_u64(text, max, &value, &err), &err);
    if (err.code) {
        FUZZ_CLAIM(value == 0);
        return;
    }
    digits = strtoull(text, &end, hex ? 16 : 10);
    suffix = *end ? strchr(suffixes, *end & ~0x20) : NULL;
    FUZZ_CLAIM(end != text && (!*end || (suffix && !end[1])));
    FUZZ_CLAIM(value == digits << (suffix ? 10 * (suffix - suffixes + 1) : 0));
    FUZZ_CLAIM(value <= max && (!suffix || value >> 10 * (suffix - suffixes + 1) == digits));
}

static void fuzz_nearest(unsigned how, char *text)
{
    char *words[WORDS + 1];
    unsigned count = split(text, '\n', words);
    const char *word = words[how % count], *found;
    unsigned i = 0;

    found = nearest_word(word, (const char *const *)words);
    if (!found) {
        FUZZ_CLAIM(!*word || strlen(word) > 63); /* else it is there itself */
        return;
    }
    while (i < count && words[i] != found)
        i++;
    FUZZ_CLAIM(i < count && strlen(found) == strlen(word));
}

/* ---- CPU models and traces ---- */

static void fuzz_cpu_model(unsigned how, char *text)
{
    struct cpu_model model;
    struct error err = {0};

    memset(&model, 0, sizeof(model));
    check_error(cpu_model_parse(text, 1 + how % 16, &model, &err), &err);
    if (err.code)
        return;
    FUZZ_CLAIM(model.name && strlen(model.vendor) == 12 && strlen(model.brand) < 48);
    FUZZ_CLAIM(model.physical_bits >= 36 && model.physical_bits <= 52 && (model.xcr0 & 1));
    FUZZ_CLAIM(model.vcpu_count == 1 + how % 16);
}

static void fuzz_trace(unsigned how, char *text)
{
    struct error err = {0};

    (void)how;
    check_error(trace_enable(text, &err), &err);
    trace_enable("-*", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parts[])(unsigned, char *) = {
        fuzz_words,  fuzz_completion, fuzz_properties, fuzz_device_properties,
        fuzz_number, fuzz_nearest,    fuzz_cpu_model,  fuzz_trace,
    };
    struct fuzz_input in = {data, size};
    unsigned part = (unsigned)fuzz_take(&in, 1) % (sizeof(parts) / sizeof(parts[0]));
    unsigned how = (unsigned)fuzz_take(&in, 1);
    char text[TEXT_BYTES] = "";

    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    memcpy(text, in.data, in.left < TEXT_BYTES ? in.left : TEXT_BYTES - 1);
    parts[part](how, text);
    return 0;
}
