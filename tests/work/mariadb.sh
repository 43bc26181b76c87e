#!/bin/bash
# mariadb.sh: a part of MariaDB's own regression tests

chown nobody /tmp/work
cd /usr/share/mysql/mysql-test || exit 1
tests='alias alter_table auto_increment bigint bool bulk_replace case cast comments compare compress count_distinct
 create ctype_latin1 ctype_utf8 cte_recursive date_formats delete derived distinct endspace fulltext func_compress
 func_concat func_crypt func_date_add func_default func_if func_in func_json func_math func_op func_regexp func_str
 func_time group_by having insert join join_cache key limit lock null olap order_by
 parser precedence ps range round select sp stat_tables subselect trigger truncate type_bit type_blob type_date
 type_decimal type_enum type_float type_newdecimal type_uint union update win xml innodb.innodb
 innodb.innodb-lock'
# shellcheck disable=SC2086 # options are words
setpriv --reuid=nobody --regid=nogroup --clear-groups ./mtr --suite=main,innodb --vardir=/tmp/work/var --force --retry=0 \
    --max-test-fail=0 --parallel="$(nproc)" --testcase-timeout=30 --suite-timeout=600 --nowarnings $tests >/tmp/log 2>&1
status=$?
sed -nE 's/^([a-z0-9_.-]+)( .*)?\[ ([a-z]+) \].*/\1 \3/p' /tmp/log | sort
tail -n 60 /tmp/log >&2
[ $status = 0 ] || fail "mtr: status $status"
