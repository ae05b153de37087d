# members: 1
# One member: health, status, hashes, alarms, snapshots, mirrors, users and roles (there are none).

for index in 1 2 3 4 5 6 7 8 9; do ctl put "data/$index" "value $index"; done
ctl put data/9 again
ctl del data/8
for format in simple json table fields; do
  ctl endpoint health -w $format
  ctl endpoint health --cluster -w $format
done
for format in simple json table fields; do
  # Sizes, what part of them is in use, and the numbers of the log.
  ctl endpoint status -w $format >answer
  sed -E "s/${clients[0]}/ADDRESS/; "'s/[0-9.]+ [kM]B/SIZE/g; s/[0-9]+%/P%/; s/[0-9]+, [0-9]+, [0-9]+,/N, N, N,/; s/│ +[0-9a-f]+ /│ N /g;
    s/^ADDRESS, [0-9a-f]+,/ADDRESS, ID,/' answer
  ctl endpoint hashkv -w $format >answer
  sed -E 's/, [0-9]{3,}/, N/; s/│ +[0-9]{3,} │/│ N │/g; s/^"Hash" : .*/"Hash" : N/' answer
done
ctl endpoint hashkv --rev 5 -w json
ctl endpoint hashkv --rev 9999
ctl endpoint status --cluster -w json | sed -E 's/[0-9]+/N/g'
for format in simple json table fields; do
  ctl alarm list -w $format
  ctl alarm disarm -w $format
done
ctl alarm list x
ctl alarm disarm x
ctl defrag
ctl defrag --cluster
ctl defrag x
ctl auth status
ctl auth status -w json
ctl auth disable
ctl auth enable
ctl user list
ctl user list -w json
ctl role list
ctl role list -w json
ctl user get nobody
ctl role get nobody
ctl user delete nobody
ctl role delete nobody
ctl user grant-role nobody nothing
ctl --user root:secret get data/1
ctl downgrade validate 3.6
ctl downgrade validate 3.7
ctl downgrade validate 3.5
ctl downgrade validate 4.0
ctl downgrade validate x
ctl downgrade validate
ctl downgrade cancel
ctl version
ctl version -w json
ctl check datascale --load x
ctl check perf --load x

ctl snapshot save saved
utl snapshot status saved -w json >answer
sed -E 's/"(hash|totalSize|totalKey)":[0-9]+/"\1":N/g' answer
ctl snapshot save
ctl snapshot save /no/such/folder/saved
at=$endpoints,127.0.0.1:1 ctl snapshot save saved

ctl check datascale --prefix /check/ --auto-compact --auto-defrag >answer
sed -E 's/[0-9.]+ MB/SIZE/g; s/[0-9]+ (B|bytes)/SIZE/g; s/^.*(PASS|FAIL)/\1/; s/.*(Approximate).*/\1/' answer
ctl get --prefix /check/ --count-only -w fields

at=127.0.0.1:1 ctl endpoint health --command-timeout 1s
at=127.0.0.1:1 ctl get a --command-timeout 1s --dial-timeout 1s
at=127.0.0.1:1 ctl endpoint status --command-timeout 1s
at=$endpoints,127.0.0.1:1 ctl get data/1
ctl put mirrored 1
background mirror make-mirror "$endpoints" --prefix data/ --dest-prefix copy/ --rev 1
for _ in $(seq 100); do
  [ -n "$(quiet get copy/9)" ] && break
  sleep 0.1
done
ctl put data/new 1
ctl del data/1
for _ in $(seq 100); do
  [ -z "$(quiet get copy/1)" ] && break
  sleep 0.1
done
ctl get --prefix copy/
until_done mirror TERM >/dev/null
ctl make-mirror
