#!/bin/bash
# postgres.sh: queries with and without LLVM's just-in-time compiler, transactions of several clients,
# their sums, checks of all tables and indices, and a crash with its recovery

export PATH=/usr/lib/postgresql/15/bin:$PATH PGHOST=/tmp/work PGDATA=/tmp/work/data PGUSER=nobody PGDATABASE=postgres
chown nobody /tmp/work
as() {
    setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
}
start() {
    as pg_ctl -w -t 300 -l /tmp/work/server.log -o "-k /tmp/work -c listen_addresses= $*" start >&2
}
sql() {
    as psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}
part initdb as initdb -A trust --no-locale -E UTF8 >&2
part start start
cat >fill.sql <<'END'
create table t as select i id, (i * 7919) % 10007 a, md5(i::text) b, (i * 0.37)::float8 c,
    date '2000-01-01' + i % 3000 d, jsonb_build_object('n', i % 100, 'tags', array[i % 7, i % 11]) j
    from generate_series(1, 50000) i;
alter table t add primary key (id);
create index on t (a, b);
create index on t using gin (j);
create index on t using hash (b);
create index on t using brin (d);
analyze t;
END
cat >queries.sql <<'END'
select count(*), sum(a), min(b), max(b), round(sum(c)::numeric, 6), round(stddev(c)::numeric, 6) from t;
select a % 10, count(*), sum(c * 2 + a)::numeric(20, 4), avg(length(b)) from t group by 1 order by 1;
select x.a, count(*), sum(y.c)::numeric(20, 4) from t x join t y on x.a = y.id % 997 where x.id < 4000 group by 1
    order by 1 limit 20;
select sum(r), sum(l) from (select rank() over (partition by a % 50 order by c desc) r,
    lag(a, 3, 0) over (order by id) l from t) w;
select count(*) from t where j @> '{"n": 42}' and j -> 'tags' ? '3' is not null;
select count(*) from t where b ~ '^[a-f]+[0-9]{2}.*f$' or b like '%abc%';
with recursive f(n, v) as (select 1, 1::bigint union all select n + 1, (v * 1103515245 + 12345) % 2147483648 from f
    where n < 100000) select sum(v), max(n) from f;
select encode(sha256(string_agg(b, ',' order by b)::bytea), 'hex') from t;
select extract(year from d), count(*) from t group by 1 order by 1;
select sum(numeric_value) from (select (i::numeric / 7) ^ 3 numeric_value from generate_series(1, 5000) i) n;
END
part fill sql -f fill.sql
part queries-jit-off sql -c 'set jit = off' -f queries.sql
part queries-jit sql -c 'set jit = on' -c 'set jit_above_cost = 0' -c 'set jit_inline_above_cost = 0' \
    -c 'set jit_optimize_above_cost = 0' -f queries.sql
part queries-parallel sql -c 'set parallel_setup_cost = 0' -c 'set parallel_tuple_cost = 0' \
    -c 'set min_parallel_table_scan_size = 0' -f queries.sql
bench() {
    as pgbench -i -s 2 -q >&2 && as pgbench -n -c 4 -j 2 -t 400 >&2
}
sums() {
    sql -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
        (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
        (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)'
}
part pgbench bench
sums
sql -c 'select count(*) from pgbench_history'
as pgbench -n -c 4 -j 2 -T 60 >&2 &
sleep 5
as pg_ctl -m immediate stop >&2
wait
part recovery start
sums
part rebuild sql -c 'reindex database postgres' -c 'vacuum full'
part check as pg_amcheck --install-missing --heapallindexed --all >&2
as pg_ctl -m fast stop >&2
