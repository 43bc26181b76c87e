/*
 * image_build.c - trapeze image build: a bootable disk made from a distribution's packages
 *
 * The work is a shell script's, share/image/NAME.sh: it calls the distribution's own tools.
 * Settings are handed over in the environment.
 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1ull << 20)

struct build_options {
    uint64_t size_bytes;
    const char *suite, *mirror, *hostname, *password, *ssh_key;
    struct cli_texts packages;
    bool no_cloud_init, force;
};

#define AT(field) .offset = offsetof(struct build_options, field)

const struct cli_option cli_image_build_options[] = {
    {"size", 0, CLI_SIZE, AT(size_bytes), "SIZE", .initial = "4G", .min = 1100 * MIB,
     .max = 64ull << 40, .help = "of the disk; it takes room as it is written"},
    {"suite", 0, CLI_TEXT, AT(suite), "NAME", .initial = "bookworm", .help = "release of Debian"},
    {"mirror", 0, CLI_TEXT, AT(mirror), "URL",
     .help = "archive that packages come from (default: the one of the host's own, or Debian's)"},
    {"hostname", 0, CLI_TEXT, AT(hostname), "NAME", .initial = "debian", .help = "its name"},
    {"password", 0, CLI_TEXT, AT(password), "TEXT",
     .help = "root's password (default: root cannot log in with one)"},
    {"ssh-key", 0, CLI_TEXT, AT(ssh_key), "FILE", .file = true,
     .help = "public key that lets root in by ssh"},
    {"package", 'p', CLI_TEXTS, AT(packages), "NAME[,NAME]...",
     .help = "install this, too; may be repeated"},
    {"no-cloud-init", 0, CLI_FLAG, AT(no_cloud_init),
     .help = "leave cloud-init out, which sets a machine up at its first start (trapeze run "
             "--cloud-init)"},
    {"force", 0, CLI_FLAG, AT(force), .help = "write over FILE if it is there"},
    {.kind = CLI_END},
};

void cli_image_build_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "debian", "Debian with a kernel, GRUB for BIOS and UEFI, ssh and a serial console");
}

static const char *join(const struct cli_texts *texts)
{
    static char joined[4096];

    joined[0] = '\0';
    for (size_t n = 0; n < texts->count; n++) {
        size_t used = strlen(joined);

        snprintf(joined + used, sizeof(joined) - used, "%s%s", used ? "," : "", texts->items[n]);
    }
    return joined;
}

/* Characters that mean something to a shell stay out of what the script puts into files. */
static int check_word(const char *option, const char *word, struct error *err)
{
    static const char good[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._+,";

    if (!word || (word[strspn(word, good)] == '\0' && *word != '-'))
        return 0;
    return error_set(err, EINVAL, "--%s '%s': letters, digits and -._+ only", option, word);
}

static void hand_over(const char *name, const char *value)
{
    setenv(name, value ? value : "", 1);
}

static int build(const struct build_options *options, const char *system, const char *file,
                 struct error *err)
{
    static char program[PATH_MAX], script[2 * PATH_MAX];
    char size[32], name[64];

    if (cli_check_choice("system", system, cli_image_build_choices, err) ||
        check_word("hostname", options->hostname, err) ||
        check_word("suite", options->suite, err) ||
        check_word("package", join(&options->packages), err))
        return -EINVAL;
    snprintf(name, sizeof(name), "image/%s.sh", system);
    if (cli_find_data("share", name, program, script, err))
        return -ENOENT;
    if (!options->force && access(file, F_OK) == 0)
        return error_set(err, EEXIST, "'%s' is there already; --force writes over it", file);
    snprintf(size, sizeof(size), "%" PRIu64, (uint64_t)(options->size_bytes / MIB));
    hand_over("FILE", file);
    hand_over("SIZE_MIB", size);
    hand_over("SUITE", options->suite);
    hand_over("MIRROR", options->mirror);
    hand_over("HOST_NAME", options->hostname);
    hand_over("PASSWORD", options->password);
    hand_over("SSH_KEY", options->ssh_key);
    hand_over("PACKAGES", join(&options->packages));
    hand_over("CLOUD_INIT", options->no_cloud_init ? "no" : "yes");
    hand_over("TRAPEZE", program);
    execl("/bin/sh", "sh", script, (char *)NULL);
    return error_set(err, errno, "/bin/sh: %s", strerror(errno));
}

int cli_image_build_run(const struct cli_verb *verb, char **words)
{
    struct build_options options = {0};
    struct cli_texts operands = {0};
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    build(&options, operands.items[0], operands.items[1], &err);
    cli_texts_free(&operands);
    cli_options_free(cli_image_build_options, &options);
    return cli_failed(verb, &err);
}
