/*
 * terminal.c - the terminal on standard input, in raw mode
 */
#include "backends/char/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "host/host.h"

static const struct terminal_hooks *the_hooks; /* NULL: none */
static bool is_taken;
static struct termios old_mode, raw_mode;
static volatile sig_atomic_t mode_changed;

/* Signals that end the process, or stop it, without anybody freeing the backend. */
static const int fatal_signals[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGPIPE, SIGTSTP,
};
#define FATAL_COUNT (sizeof(fatal_signals) / sizeof(fatal_signals[0]))
static struct sigaction old_actions[FATAL_COUNT], old_continue;
static bool handled[FATAL_COUNT], continue_handled;

static void restore_mode(void)
{
    if (!mode_changed)
        return;
    mode_changed = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &old_mode);
    if (the_hooks)
        the_hooks->left();
}

/* Put the mode back, then let the signal do what it would have done. */
static void on_fatal_signal(int number)
{
    int saved_errno = errno;
    sigset_t just_this;

    restore_mode();
    signal(number, SIG_DFL);
    sigemptyset(&just_this);
    sigaddset(&just_this, number);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &just_this, NULL);
    errno = saved_errno;
}

/* After a stop: take the terminal again, and wait for the next stop. */
static void on_continue(int number)
{
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK};
    int saved_errno = errno;

    (void)number;
    if (tcgetpgrp(STDIN_FILENO) == getpgrp() && !tcsetattr(STDIN_FILENO, TCSANOW, &raw_mode)) {
        mode_changed = 1;
        if (the_hooks)
            the_hooks->taken();
    }
    sigaction(SIGTSTP, &action, NULL);
    errno = saved_errno;
}

/* Only where nobody else has a handler: those end the program in order. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK};
    struct sigaction resume = {.sa_handler = on_continue};

    for (size_t i = 0; i < FATAL_COUNT; i++) {
        sigaction(fatal_signals[i], NULL, &old_actions[i]);
        handled[i] = old_actions[i].sa_handler == SIG_DFL;
        if (handled[i])
            sigaction(fatal_signals[i], &action, NULL);
    }
    sigaction(SIGCONT, NULL, &old_continue);
    continue_handled = old_continue.sa_handler == SIG_DFL;
    if (continue_handled)
        sigaction(SIGCONT, &resume, NULL);
    host_on_crash(restore_mode); /* where generated code has the handlers */
}

/* Give a signal back, unless somebody else has taken it over since. */
static void release_signal(int number, void (*ours)(int), const struct sigaction *old)
{
    struct sigaction now;

    if (!sigaction(number, NULL, &now) && now.sa_handler == ours)
        sigaction(number, old, NULL);
}

static void release_signals(void)
{
    host_on_crash(NULL);
    for (size_t i = 0; i < FATAL_COUNT; i++)
        if (handled[i])
            release_signal(fatal_signals[i], on_fatal_signal, &old_actions[i]);
    if (continue_handled)
        release_signal(SIGCONT, on_continue, &old_continue);
    memset(handled, 0, sizeof(handled));
    continue_handled = false;
}

/* Output keeps its processing, for the messages that the program itself prints; not for pictures.
 */
static void enter_raw_mode(void)
{
    static bool at_exit_registered;

    if (tcgetattr(STDIN_FILENO, &old_mode))
        return;
    raw_mode = old_mode;
    raw_mode.c_iflag &=
        ~(tcflag_t)(BRKINT | ICRNL | IGNCR | INLCR | INPCK | ISTRIP | IXON | PARMRK);
    raw_mode.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
    if (the_hooks)
        raw_mode.c_oflag &= ~(tcflag_t)OPOST;
    raw_mode.c_cc[VMIN] = 1;
    raw_mode.c_cc[VTIME] = 0;
    if (!at_exit_registered && atexit(restore_mode))
        return;
    at_exit_registered = true;
    catch_signals();
    if (!tcsetattr(STDIN_FILENO, TCSANOW, &raw_mode))
        mode_changed = 1;
}

int terminal_take(const struct terminal_hooks *hooks, struct error *err)
{
    pid_t in_front = tcgetpgrp(STDIN_FILENO); /* -1: not the terminal that controls us */

    if (is_taken)
        return error_set(err, EBUSY, "standard input and output are in use by another device");
    if (!isatty(STDIN_FILENO))
        return error_set(err, ENOTTY, "standard input is no terminal");
    if (in_front >= 0 && in_front != getpgrp())
        return error_set(err, EPERM, "the terminal is another job's");
    is_taken = true;
    the_hooks = hooks;
    enter_raw_mode();
    return 0;
}

void terminal_give_back(void)
{
    if (!is_taken)
        return;
    restore_mode();
    release_signals();
    the_hooks = NULL;
    is_taken = false;
}

bool terminal_is_raw(void)
{
    return mode_changed;
}
