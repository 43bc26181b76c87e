/*
 * cmocka_all.h - cmocka with the headers that it needs before it
 */
#ifndef TESTS_DEVICE_CMOCKA_ALL_H
#define TESTS_DEVICE_CMOCKA_ALL_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#endif
