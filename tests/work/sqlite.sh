#!/bin/bash
# sqlite.sh: a database of 60,000 rows: indices, joins, window functions, text search, JSON, integrity

perl -e '
    srand 3;
    print "pragma journal_mode=wal; create table t(id integer primary key, a int, b text, c real);",
        "create table u(x int, y int); begin;\n";
    printf "insert into t values(%d,%d,\x27%x\x27,%.17g);\n", $_, rand 5000, rand 2**50, rand for 0 .. 39999;
    printf "insert into u values(%d,%d);\n", rand 5000, rand 100 for 0 .. 19999;
    print "commit; create index ta on t(a); create index tb on t(b);\n";' >fill.sql
cat >query.sql <<'END'
select count(*), sum(c), min(b), max(b) from t;
select y, count(*), avg(c) from t join u on t.a = u.x group by y order by y limit 50;
update t set c = c * 2 where a % 3 = 0;
delete from t where a % 7 = 1;
select count(*), total(c) from t;
select group_concat(b) from (select b from t order by b limit 100);
with recursive f(n, v) as (select 1, 1 union all select n + 1, (v * 1103515245 + 12345) % 2147483648
    from f where n < 300000) select sum(v) from f;
select printf('%.12g', sum(c * c)) from t;
vacuum;
select hex(sum(length(b))) from t;
select count(*) from t where b like '%abc%' or b glob '*f0*';
select a, rank() over (order by c desc), sum(c) over (partition by a % 10 order by id rows 5 preceding)
    from t where id < 2000 order by id;
create virtual table f using fts5(b);
insert into f select 'w' || (a % 97) || ' x' || (a % 31) || ' ' || b from t;
select count(*), sum(rowid) from f where f match 'w3 AND x7';
select sum(json_extract(json_object('a', a, 'c', c), '$.a')) from t;
with recursive x(i) as (select 0 union all select i + 1 from x where i < 40), m(ix, iy, cx, cy, z, y, n) as
    (select x.i, k.i, x.i * 0.05 - 1.5, k.i * 0.05 - 1.0, 0.0, 0.0, 0 from x, x as k union all
    select ix, iy, cx, cy, z * z - y * y + cx, 2.0 * z * y + cy, n + 1 from m where z * z + y * y < 4 and n < 60)
    select sum(n), max(n) from (select max(n) n from m group by ix, iy);
pragma integrity_check;
END
part fill sqlite3 db '.read fill.sql'
part query sqlite3 db '.read query.sql'
# Writers at the same time: nothing is lost.
sqlite3 db 'create table n(i int); insert into n values(0);'
writers() {
    for _ in 1 2 3; do
        (for _ in $(seq 60); do
            sqlite3 -cmd '.timeout 60000' db 'update n set i = i + 1;' || echo failed
        done) &
    done
    wait
    sqlite3 db 'select i from n; pragma integrity_check;'
}
part writers writers
