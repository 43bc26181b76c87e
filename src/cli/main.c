/*
 * main.c - the trapeze command: finds the verb and calls it
 */
#include <stdio.h>

int main(void)
{
    fprintf(stderr, "trapeze: no verbs yet\n");
    return 2;
}
