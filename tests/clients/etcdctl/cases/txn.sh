# members: 1
# Transactions, as they are typed: conditions, an empty line, what is done, an empty line, what is done else.

ctl put a 1
ctl put b 2
ctl put n 10
for format in simple json fields table; do
  ctl txn -w $format <<'TXN'
value("a") = "1"
mod("b") > "1"
create("c") = "0"
ver("n") < "2"

put c "with blanks in it"
get --prefix ""
del b --prev-kv

get a

TXN
  ctl txn -w $format <<'TXN'
version("missing") > "0"

put never never

get a b
put b 2 --prev-kv
del c

TXN
done
ctl txn --interactive <<'TXN'
value("a") != "1"

put never never

get a

TXN
ctl txn <<'TXN'

put x 1
put y 2
get x
del x

TXN
ctl txn <<'TXN'
lease("a") = "0"
lease("a") > "5"


get a --rev 2
TXN
# Wrong ones: an unknown condition, no number, the same key twice, a revision to come, no such lease.
ctl txn <<'TXN'
colour("a") = "1"


TXN
ctl txn <<'TXN'
mod("a") = "x"


TXN
ctl txn <<'TXN'
mod("a") ~ "1"


TXN
ctl txn <<'TXN'

put a 1
put a 2

TXN
ctl txn <<'TXN'

put aa 1
del a --prefix

TXN
ctl txn <<'TXN'

get a --rev 9999

TXN
ctl txn <<'TXN'

put a 1 --lease=77

TXN
ctl txn <<'TXN'

jump a

TXN
ctl txn <<'TXN'

put none --ignore-value

TXN
ctl txn argument </dev/null
ctl txn </dev/null
{
  printf '\n'
  for index in $(seq 129); do echo "put many/$index x"; done
  printf '\n\n'
} >many
ctl txn <many
sed -i 129d many
ctl txn <many >answer
sort answer | uniq -c
ctl get --prefix '' -w json
