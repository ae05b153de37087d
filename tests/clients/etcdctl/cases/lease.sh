# members: 1
# Leases. Their ids are chosen by the server: a case remembers them, the transcript shows ID.

# grant ARGUMENTS: leaves the id in $lease.
grant() {
  ctl lease grant "$@" | tee granted
  lease=$(sed -n 's/^lease \([0-9a-f]*\) granted.*/\1/p' granted)
}

ctl lease list
grant 100
first=$lease
grant 200 -w simple
second=$lease
ctl lease grant 300 -w json >answer
sed -E 's/"ID":[0-9]+/"ID":N/' answer
ctl lease grant 300 -w fields
ctl lease grant 300 -w table
ctl lease list >answer
sed 1,3d answer | grep -c '^'
ctl put with/1 x --lease=$first
ctl put other x --lease=$second
ctl get with/1 -w json >answer
sed -E 's/"lease":[0-9]+/"lease":N/' answer
ctl put with/1 y --ignore-lease
ctl put with/1 --ignore-value --lease=$first
ctl put other
ctl put other z </dev/null
for format in simple json fields table; do
  ctl lease timetolive $first -w $format >answer
  sed -E 's/"(id|ttl|ID|TTL)":[0-9]+/"\1":N/g; s/^"?TTL"? : .*/TTL : N/' answer
  ctl lease timetolive $first --keys -w $format >answer
  sed -E 's/"(id|ttl|ID|TTL)":[0-9]+/"\1":N/g; s/^"?TTL"? : .*/TTL : N/' answer
  ctl lease keep-alive --once $first -w $format >answer
  sed -E 's/"(id|ID)":[0-9]+/"\1":N/g' answer
done
ctl lease timetolive 77 --keys
ctl lease timetolive 77 -w json
ctl lease keep-alive --once 77
ctl lease keep-alive 77
ctl lease revoke 77
ctl lease revoke x
ctl lease revoke
ctl lease timetolive
ctl lease timetolive x
ctl lease keep-alive
ctl lease grant
ctl lease grant x
ctl lease grant 0
ctl lease grant -- -5
ctl lease grant 9000000000
ctl lease grant 9000000001
ctl lease list now
ctl lease revoke $first
ctl lease revoke $first
ctl lease revoke $second -w json
ctl get --prefix with/
ctl get other

# It goes by itself, and its keys with it.
grant 1
ctl put gone soon --lease=$lease
background kept lease keep-alive $lease
has kept 4
ctl get gone
until_done kept TERM >answer
sort -u answer
background end watch gone
has end 3
until_done end TERM
ctl lease timetolive $lease
ctl get gone
