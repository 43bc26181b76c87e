/*
 * image.c - the verbs "trapeze image ..."
 */
#include "cli/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/block/image.h"
#include "trapeze/property.h"

#define PROGRESS_AFTER_NS 1000000000ull
#define PROGRESS_EVERY_NS 100000000ull
#define BAR_WIDTH         40

struct verb_options {
    const char *format, *output_format, *backing, *backing_format, *image;
    bool json, force, compress, repair, shrink, keep, only_name;
};

#define AT(field) offsetof(struct verb_options, field)

static void format_choices(cli_put_choice *put, void *opaque)
{
    for (size_t n = 0; block_formats[n]; n++)
        put(opaque, block_formats[n]->name, block_formats[n]->summary);
}

#define OPTION_FORMAT(h)                                                                           \
    {                                                                                              \
        "format", 'f', CLI_TEXT, AT(format), "FORMAT", .choices = format_choices,                  \
                                                       .only_choices = true, .help = h             \
    }
#define OPTION_JSON                                                                                \
    {                                                                                              \
        "json", .kind = CLI_FLAG, .offset = AT(json), .help = "print JSON"                         \
    }
#define OPTION_FORCE                                                                               \
    {                                                                                              \
        "force", .kind = CLI_FLAG, .offset = AT(force),                                            \
                 .help = "overwrite a file that is there already"                                  \
    }
#define OPTION_IMAGE                                                                               \
    {                                                                                              \
        "option", 'o', CLI_TEXT, AT(image), "NAME=VALUE,...",                                      \
            .help = "what a qcow2 image is like: cluster_size=64K, compression=zlib or zstd, "     \
                    "version=3 or 2"                                                               \
    }
#define OPTION_BACKING(h)                                                                          \
    {                                                                                              \
        "backing", 'b', CLI_TEXT, AT(backing), "FILE", .file = true, .help = h                     \
    }
#define OPTION_BACKING_FORMAT                                                                      \
    {                                                                                              \
        "backing-format", 'F', CLI_TEXT, AT(backing_format), "FORMAT",                             \
            .choices = format_choices, .only_choices = true,                                       \
            .help = "format of the backing file; found out if not given"                           \
    }
#define FOUND_OUT "format of the image; found out if not given"

const struct cli_option cli_image_create_options[] = {
    {"format", 'f', CLI_TEXT, AT(format), "FORMAT", .initial = "qcow2", .choices = format_choices,
     .only_choices = true, .help = "format of the new image"},
    OPTION_BACKING("image that is seen through the new one wherever nothing was written; its name "
                   "is relative to the new image's folder"),
    OPTION_BACKING_FORMAT,
    OPTION_IMAGE,
    OPTION_FORCE,
    {.kind = CLI_END},
};

const struct cli_option cli_image_info_options[] = {
    OPTION_FORMAT(FOUND_OUT),
    OPTION_JSON,
    {.kind = CLI_END},
};

const struct cli_option cli_image_convert_options[] = {
    OPTION_FORMAT("format of IMAGE; found out if not given"),
    {"output-format", 'O', CLI_TEXT, AT(output_format), "FORMAT", .initial = "qcow2",
     .choices = format_choices, .only_choices = true, .help = "format of the new image"},
    {"compress", 'c', CLI_FLAG, AT(compress), .help = "compress what is written (qcow2)"},
    OPTION_IMAGE,
    OPTION_FORCE,
    {.kind = CLI_END},
};

const struct cli_option cli_image_check_options[] = {
    OPTION_FORMAT(FOUND_OUT),
    {"repair", 'r', CLI_FLAG, AT(repair), .help = "set right what is wrong"},
    OPTION_JSON,
    {.kind = CLI_END},
};

const struct cli_option cli_image_resize_options[] = {
    OPTION_FORMAT(FOUND_OUT),
    {"shrink", .kind = CLI_FLAG, .offset = AT(shrink),
     .help = "allow a smaller size: what is behind the new end is lost"},
    {.kind = CLI_END},
};

const struct cli_option cli_image_commit_options[] = {
    {"keep", 'd', CLI_FLAG, AT(keep), .help = "do not empty the image afterwards"},
    {.kind = CLI_END},
};

const struct cli_option cli_image_rebase_options[] = {
    OPTION_BACKING("the new backing file; an empty name for none"),
    OPTION_BACKING_FORMAT,
    {"only-name", 'u', CLI_FLAG, AT(only_name),
     .help = "change the name only: for a backing file that was moved or renamed"},
    {.kind = CLI_END},
};

/* ---- progress ---- */

struct bar {
    uint64_t start_ns, last_ns;
    bool is_wanted, is_shown;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void show_bar(void *opaque, uint64_t done, uint64_t total)
{
    struct bar *bar = opaque;
    uint64_t now = bar->is_wanted ? now_ns() : 0;
    int full = total ? (int)((double)done / (double)total * BAR_WIDTH) : 0;

    if (!bar->is_wanted || now - bar->start_ns < PROGRESS_AFTER_NS ||
        now - bar->last_ns < PROGRESS_EVERY_NS)
        return;
    bar->last_ns = now;
    bar->is_shown = true;
    fprintf(stderr, "\r[%.*s%*s] %3d %%", full, "########################################",
            BAR_WIDTH - full, "", (int)((double)done / (double)total * 100));
    fflush(stderr);
}

static struct bar start_bar(void)
{
    return (struct bar){.start_ns = now_ns(), .is_wanted = isatty(STDERR_FILENO)};
}

static void end_bar(const struct bar *bar)
{
    if (bar->is_shown)
        fprintf(stderr, "\r%*s\r", BAR_WIDTH + 8, "");
}

/* ---- common ---- */

typedef int verb_fn(const struct verb_options *options, const struct cli_texts *operands,
                    struct error *err);

/* Parse and do it. -EINVAL before anything was done is misuse. */
static int run(const struct cli_verb *verb, char **words, verb_fn *fn)
{
    struct verb_options options = {0};
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);
    int result;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    result = fn(&options, &operands, &err);
    cli_texts_free(&operands);
    return result < 0 ? cli_failed(verb, &err) : result;
}

/* "10G"; bytes without a suffix. */
static int parse_size(const char *text, uint64_t *out_size, struct error *err)
{
    if (property_parse_u64(text, INT64_MAX, out_size, err)) {
        error_prefix(err, "size: ");
        return -EINVAL;
    }
    return 0;
}

static int parse_image_options(const char *text, struct image_options *out, struct error *err)
{
    if (properties_init(image_properties, out, err))
        return -ENOMEM;
    return text ? properties_parse(image_properties, out, text, err) : 0;
}

static const char *unit_text(uint64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned n = 0;

    for (; value >= 1024 && n < 6; n++)
        value /= 1024;
    snprintf(text, size, n ? "%.3g %s" : "%.0f %s", value, units[n]);
    return text;
}

static void print_json(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
}

/* ---- create ---- */

static int do_create(const struct verb_options *options, const struct cli_texts *operands,
                     struct error *err)
{
    struct image_options image = {0};
    struct image_new new = {.file = operands->items[0],
                            .format = options->format,
                            .backing = options->backing,
                            .backing_format = options->backing_format,
                            .force = options->force,
                            .options = &image};
    int result = parse_image_options(options->image, &image, err);

    if (!result && operands->count > 1)
        result = parse_size(operands->items[1], &new.size_bytes, err);
    else if (!result && !options->backing)
        result = error_set(err, EINVAL, "which size? Give FILE SIZE, or a backing file");
    if (!result)
        result = image_create(&new, err);
    properties_done(image_properties, &image);
    return result;
}

int cli_image_create_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_create);
}

/* ---- info ---- */

static void print_info(const char *file, const struct image_info *info)
{
    char size[32], used[32];

    printf("image: %s\nformat: %s\n", file, info->format);
    printf("size of the disk: %s (%llu bytes)\n", unit_text(info->size_bytes, size, sizeof(size)),
           (unsigned long long)info->size_bytes);
    printf("used on the host: %s\n", unit_text(info->used_bytes, used, sizeof(used)));
    if (!info->is_qcow2)
        return;
    if (info->backing[0])
        printf("backing file: %s%s%s%s\n", info->backing, info->backing_format[0] ? " (" : "",
               info->backing_format, info->backing_format[0] ? ")" : "");
    printf("cluster size: %u\nversion: %u\nrefcount bits: %u\ncompression: %s\n",
           info->qcow2.cluster_bytes, info->qcow2.version, info->qcow2.refcount_bits,
           info->qcow2.compression == QCOW2_ZSTD ? "zstd" : "zlib");
    if (info->qcow2.snapshots)
        printf("snapshots: %u\n", info->qcow2.snapshots);
    if (info->qcow2.is_dirty)
        printf("dirty: it was not closed by who wrote it last\n");
    if (info->qcow2.is_corrupt)
        printf("corrupt: it is marked so\n");
}

/* Names as qemu-img has them. */
static json_t *info_json(const char *file, const struct image_info *info)
{
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:I}", "filename", file, "format", info->format, "virtual-size",
                  (json_int_t)info->size_bytes, "actual-size", (json_int_t)info->used_bytes);
    const struct qcow2_info *qcow2 = &info->qcow2;

    if (!info->is_qcow2)
        return json;
    json_object_set_new(json, "cluster-size", json_integer(qcow2->cluster_bytes));
    json_object_set_new(json, "dirty-flag", json_boolean(qcow2->is_dirty));
    if (info->backing[0])
        json_object_set_new(json, "backing-filename", json_string(info->backing));
    if (info->backing_format[0])
        json_object_set_new(json, "backing-filename-format", json_string(info->backing_format));
    json_object_set_new(json, "format-specific",
                        json_pack("{s:s, s:{s:s, s:s, s:i, s:b, s:i}}", "type", "qcow2", "data",
                                  "compat", qcow2->version == 2 ? "0.10" : "1.1",
                                  "compression-type",
                                  qcow2->compression == QCOW2_ZSTD ? "zstd" : "zlib",
                                  "refcount-bits", (int)qcow2->refcount_bits, "corrupt",
                                  qcow2->is_corrupt, "snapshots", (int)qcow2->snapshots));
    return json;
}

static int do_info(const struct verb_options *options, const struct cli_texts *operands,
                   struct error *err)
{
    struct image_info info;
    int result = image_info(operands->items[0], options->format, &info, err);

    if (result)
        return result;
    if (options->json)
        print_json(info_json(operands->items[0], &info));
    else
        print_info(operands->items[0], &info);
    return CLI_DONE;
}

int cli_image_info_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_info);
}

/* ---- convert ---- */

static int do_convert(const struct verb_options *options, const struct cli_texts *operands,
                      struct error *err)
{
    struct image_options image = {0};
    const struct image_new new = {.file = operands->items[1],
                                  .format = options->output_format,
                                  .force = options->force,
                                  .options = &image};
    struct bar bar = start_bar();
    const struct image_progress progress = {show_bar, &bar};
    int result = parse_image_options(options->image, &image, err);

    if (!result)
        result = image_convert(operands->items[0], options->format, &new, options->compress,
                               &progress, err);
    end_bar(&bar);
    properties_done(image_properties, &image);
    return result;
}

int cli_image_convert_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_convert);
}

/* ---- check ---- */

static void print_problem(void *opaque, const char *text)
{
    if (!*(const bool *)opaque)
        printf("%s\n", text);
}

static void print_check(const struct qcow2_check_result *r, bool repair)
{
    if (!r->corruptions && !r->leaks)
        printf("no errors were found\n");
    if (r->corruptions)
        printf("%llu errors; data may be lost\n", (unsigned long long)r->corruptions);
    if (r->leaks)
        printf("%llu clusters are lost room, and no harm\n", (unsigned long long)r->leaks);
    if (repair && (r->corruptions || r->leaks))
        printf("repaired\n");
    printf("%llu of %llu clusters are in use", (unsigned long long)r->allocated,
           (unsigned long long)r->clusters);
    if (r->image_end)
        printf(", %llu of them compressed; the file is used up to byte %llu",
               (unsigned long long)r->compressed, (unsigned long long)r->image_end);
    printf("\n");
}

static json_t *check_json(const char *file, const struct qcow2_check_result *r)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I}", "filename", file,
                     "format", r->format, "corruptions", (json_int_t)r->corruptions, "leaks",
                     (json_int_t)r->leaks, "corruptions-fixed", (json_int_t)r->corruptions_fixed,
                     "leaks-fixed", (json_int_t)r->leaks_fixed, "check-errors", 0, "total-clusters",
                     (json_int_t)r->clusters, "allocated-clusters", (json_int_t)r->allocated,
                     "compressed-clusters", (json_int_t)r->compressed, "image-end-offset",
                     (json_int_t)r->image_end);
}

static int do_check(const struct verb_options *options, const struct cli_texts *operands,
                    struct error *err)
{
    struct qcow2_check_result r;
    int result = image_check(operands->items[0], options->format, options->repair, print_problem,
                             (void *)(uintptr_t)&options->json, &r, err);

    if (result)
        return result;
    if (options->json)
        print_json(check_json(operands->items[0], &r));
    else
        print_check(&r, options->repair);
    return r.corruptions && !options->repair ? CLI_FAILED : CLI_DONE;
}

int cli_image_check_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_check);
}

/* ---- resize ---- */

/* "+1G", "-1G", "20G". */
static int new_size(const char *text, uint64_t now, uint64_t *out_size, struct error *err)
{
    bool is_more = text[0] == '+', is_less = text[0] == '-';

    if (parse_size(text + (is_more || is_less), out_size, err))
        return -EINVAL;
    if (is_less && *out_size > now)
        return error_set(err, EINVAL, "the disk has only %llu bytes", (unsigned long long)now);
    *out_size = is_more ? now + *out_size : is_less ? now - *out_size : *out_size;
    return 0;
}

static int do_resize(const struct verb_options *options, const struct cli_texts *operands,
                     struct error *err)
{
    const char *file = operands->items[0];
    struct image_info info;
    uint64_t size;
    int result = image_info(file, options->format, &info, err);

    if (!result)
        result = new_size(operands->items[1], info.size_bytes, &size, err);
    if (result)
        return result;
    if (size < info.size_bytes && !options->shrink)
        return error_set(err, EINVAL,
                         "the disk would become smaller, and what is behind %s lost; --shrink does "
                         "it",
                         operands->items[1]);
    return image_resize(file, options->format, size, err);
}

int cli_image_resize_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_resize);
}

/* ---- backing files ---- */

static int do_commit(const struct verb_options *options, const struct cli_texts *operands,
                     struct error *err)
{
    struct bar bar = start_bar();
    const struct image_progress progress = {show_bar, &bar};
    int result = image_commit(operands->items[0], options->keep, &progress, err);

    end_bar(&bar);
    return result;
}

int cli_image_commit_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_commit);
}

static int do_rebase(const struct verb_options *options, const struct cli_texts *operands,
                     struct error *err)
{
    struct bar bar = start_bar();
    const struct image_progress progress = {show_bar, &bar};
    int result;

    if (!options->backing)
        return error_set(err, EINVAL, "over which backing file? Give -b FILE, or -b '' for none");
    result = image_rebase(operands->items[0], options->backing, options->backing_format,
                          options->only_name, &progress, err);
    end_bar(&bar);
    return result;
}

int cli_image_rebase_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_rebase);
}
