# members: 1
# Reads, writes and deletions, with each of their flags and in each format.

ctl put foo bar
ctl put foo baz --prev-kv
ctl put foo baz2 --prev-kv -w json
ctl put foo baz3 --prev-kv -w fields
ctl put foo baz4 --prev-kv -w table
body put foo baz5 --prev-kv
for index in 1 2 3 4 5; do ctl put "key/$index" "value $((9 - index))"; done
ctl put key/2 again
ctl put empty ''
ctl put binary $'\x01\xff\xfe' -w json
ctl put -- -dash '-value'
printf 'from stdin\nin two lines\n' | ctl put lines
ctl put foo --ignore-value
ctl put foo --ignore-value --prev-kv
ctl put foo x --ignore-lease
ctl put none --ignore-value </dev/null
ctl put none x --ignore-lease
ctl put foo x --ignore-value
ctl put foo x --lease=77
ctl put foo x --lease=no-number

for format in simple json fields table; do
  ctl get foo -w $format
  ctl get missing -w $format
  ctl get --prefix key/ -w $format
  ctl get --prefix key/ --limit 2 -w $format
  ctl get --prefix key/ --keys-only -w $format
  ctl get --prefix key/ --count-only -w $format
  ctl get binary -w $format
done
body get foo
body get --prefix key/
body get --prefix key/ --limit 2
body get --prefix key/ --count-only
body get missing
ctl get key/1 --hex
ctl get binary --hex
ctl get --prefix key/ --print-value-only
ctl get --prefix key/ --print-value-only --keys-only
ctl get --prefix key/ --print-value-only -w json
ctl get key/2 key/4
ctl get key/4 key/2
ctl get --from-key key/3
ctl get --from-key '' --keys-only
ctl get --prefix '' --keys-only
ctl get '' --prefix --count-only
ctl get --from-key --prefix key/
ctl get --prefix key/ key/9
ctl get lines -w json
ctl get foo --consistency s
ctl get foo --consistency x
for target in CREATE KEY MODIFY VALUE VERSION; do
  for order in ASCEND DESCEND; do
    ctl get --prefix key/ --sort-by $target --order $order
    ctl get --prefix key/ --sort-by $target --order $order --limit 2 --keys-only
  done
  ctl get --prefix key/ --sort-by $target
done
ctl get --prefix key/ --sort-by NOTHING
ctl get --prefix key/ --order SIDEWAYS
ctl get --prefix key/ --order DESCEND
ctl get foo --rev 2
ctl get foo --rev 3 -w json
ctl get --prefix '' --rev 8 --keys-only
ctl get foo --rev 9999
ctl get foo --rev -1
ctl get foo --limit -1
ctl get --prefix key/ --min-mod-rev 10 -w json
ctl get --prefix key/ --max-mod-rev 10 --keys-only
ctl get --prefix key/ --min-create-rev 10 --keys-only
ctl get --prefix key/ --max-create-rev 10 --keys-only -w json
ctl get --prefix key/ --stream
ctl get --prefix key/ --stream -w json
ctl get --prefix key/ --stream --limit 2 --rev 10
ctl get --prefix key/ --stream --sort-by MODIFY
ctl get --prefix key/ --stream --order DESCEND
ctl get --prefix key/ --stream --count-only
ctl get --prefix key/ --stream --rev 9999
ctl get
ctl get a b c
ctl put
ctl put a b c
ctl get ''
ctl put '' value
ctl get foo -w nonsense
ctl get foo --no-such-flag

ctl del foo --prev-kv
ctl del foo
ctl del key/1 --prev-kv -w json
ctl del key/2 key/4 --prev-kv -w fields
ctl put key/2 back
ctl put key/3 back
ctl del --prefix key/ --prev-kv -w table
ctl del --range lines
ctl del --prefix nothing --prev-kv -w json
ctl put a 1
ctl put b 2
body del --prefix '' --prev-kv
ctl put a 1
ctl del --from-key a --prev-kv
ctl del --from-key '' -w json
ctl del
ctl del ''
ctl del a b c
ctl del --prefix --from-key a
ctl nonsense

head -c 1400000 /dev/zero | tr '\0' x >large
ctl put large <large
ctl get large --count-only -w json
head -c 1600000 /dev/zero | tr '\0' x >large
ctl put large <large
head -c 3000000 /dev/zero | tr '\0' x >large
ctl put large <large
ctl compaction 10
ctl compaction 10
ctl compaction 3
ctl compaction 99999
ctl compaction 12 --physical -w json
ctl compaction x
ctl compaction
ctl compaction 0
ctl compaction -1
ctl get foo --rev 5
ctl get --prefix key/ --rev 11
