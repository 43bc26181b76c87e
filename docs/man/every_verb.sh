#!/bin/sh
# every_verb.sh TRAPEZE VERB... - are these all verbs that the program has?
trapeze=$1
shift
listed=$(printf '%s\n' "$@" | sort)
has=$("$trapeze" --help | sed -n 's/^  \([a-z][a-z ]*[a-z]\)  .*/\1/p' | sort)
[ -n "$has" ] && [ "$has" = "$listed" ] && exit 0
printf 'The program has:\n%s\ndocs/man/meson.build has:\n%s\n' "$has" "$listed"
exit 1
