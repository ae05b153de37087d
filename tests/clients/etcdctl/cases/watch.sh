# members: 1
# Watches from now on and from revisions on, with what they print, run and refuse.

ctl put a 1
ctl put a 2
ctl put b/1 1
ctl put b/2 1
ctl del a
background past watch a --rev 2
background previous watch a --rev 3 --prev-kv
background prefix watch --prefix b/ --rev 1
background range watch a b --rev 1
background json watch a --rev 1 -w json
background fields watch a --rev 1 --prev-kv -w fields
background executes watch b/ --prefix --rev 1 -- sh -c \
  'echo "$ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
background variables watch --rev 1 a
has past 9
has previous 7
has prefix 6
has range 9
has json 1
has fields 10
has executes 8
for name in past previous prefix range json fields executes variables; do until_done $name TERM; done

background now watch c
sleep 0.5
ctl put c 1
ctl put d 1
ctl put c 2
ctl del c
ctl txn <<'TXN'

put c 3
put d 2

TXN
has now 11
until_done now TERM

export ETCDCTL_WATCH_KEY=a ETCDCTL_WATCH_RANGE_END=c
background environment watch --rev 1
has environment 15
until_done environment TERM
unset ETCDCTL_WATCH_KEY ETCDCTL_WATCH_RANGE_END

# Interactive: several watches on one stream; it ends with its input.
{
  printf 'watch a --rev 1\n'
  sleep 1
  printf 'watch b/ --prefix --rev 1\n'
  sleep 1
  printf 'progress\n'
  sleep 1
} | ctl watch -i
printf 'nonsense\n' | ctl watch -i

ctl compaction 4
ctl watch a --rev 2
ctl watch a --rev 2 -w json
ctl watch
ctl watch a --prefix b
background ahead watch e --rev 12
sleep 0.5
ctl put e 1
ctl put e 2
ctl put e 3
has ahead 6
until_done ahead TERM
