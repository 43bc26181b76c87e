/*
 * client.h - the connection of a verb to a running machine's monitor
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/cli.h"

struct client_connection {
    int fd;
    FILE *in;
    bool json;
};

/* 0, or -EINVAL and a hint; client_close() in either case. */
int client_open(struct client_connection *connection, const char *socket, struct error *err);
void client_close(struct client_connection *connection);
/* With a descriptor, or -1. */
int client_send_with_file(const struct client_connection *connection, const json_t *request,
                          int file, struct error *err);
int client_send(const struct client_connection *connection, const json_t *request,
                struct error *err);
/* The next line of JSON, or NULL with err. */
json_t *client_read(const struct client_connection *connection, struct error *err);
/* The answer to a request, whatever events come before it. NULL with err. */
json_t *client_read_answer(const struct client_connection *connection, struct error *err);
/* As text, or as it came if the user wants JSON. */
void client_print(const struct client_connection *connection, const json_t *reply);
/* 0, or what a reply says went wrong: -EREMOTEIO. */
int client_check(const json_t *reply, struct error *err);
/* One request and its reply, which is printed; -EREMOTEIO if the machine answered with an error. */
int client_ask(const struct client_connection *connection, const json_t *request,
               struct error *err);

#endif
