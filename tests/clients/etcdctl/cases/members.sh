# members: 3
# Three members, a fourth as a learner and as a voter, and what is refused. Ids are told by their members' names, and
# lists sorted by them: each program has its own order.

id() { quiet member list | sed -n "s/^\([0-9a-f]*\), [a-z]*, $1,.*/\1/p"; }
leader() {
  for endpoint in "${clients[@]}"; do
    "$ETCDCTL" --endpoints "$endpoint" endpoint status | grep -q ', true, false,' && echo "$endpoint"
  done
}
# shown: what a call printed, in an order of its own.
shown() {
  sed -E 's/^[0-9a-f]+, /ID, /; s/(Member) +[0-9a-f]+ /\1 ID /; s/(cluster) +[0-9a-f]+$/\1 ID/;
    s/(from) [0-9a-f]+ to [0-9a-f]+/\1 ID to ID/; s/(promote|remove|update|move-leader) [0-9a-f]+( |$)/\1 ID\2/;
    s/"(ID|cluster_id|member_id|raft_term)":[0-9]+/"\1":N/g; s/│ +[0-9a-f]+ │/│ ID │/' | LC_ALL=C sort
}
# again ARGUMENTS: etcd changes no members in its first seconds, and waits for a learner that is behind.
again() {
  for _ in $(seq 60); do
    "$ETCDCTL" --endpoints "$(leader | head -1)" "$@" >told 2>&1
    grep -q 'unhealthy cluster\|in sync with leader' told || break
    sleep 0.5
  done
  printf '\n$ etcdctl %s\n' "$*" | shown
  cat told
}

# Quorate serves clients before all members know each other's names.
for endpoint in "${clients[@]}"; do
  for _ in $(seq 100); do
    [ "$("$ETCDCTL" --endpoints "$endpoint" member list | grep -c ', started,')" = 3 ] && break
    sleep 0.1
  done
done
at=${clients[0]}
ctl member list | shown
ctl member list -w json | grep -o '"name":"[^"]*"' | sort
ctl member list -w table | shown
ctl member list -w fields | grep -v ID | sort
ctl member list --consistency s | shown
ctl member list --consistency x
at=$endpoints ctl endpoint health | shown
ctl endpoint health --cluster | shown
ctl endpoint status --cluster | wc -l
at=$endpoints ctl alarm list
ctl defrag --cluster | shown

lead=$(leader)
for index in 0 1 2; do [ "${clients[index]}" = "$lead" ] || follower=$index; done
target=$(id "m$follower")
at=${clients[follower]} ctl move-leader "$target" 2>&1 | shown
at=$endpoints ctl move-leader "$target" | shown
[ "$(leader)" = "${clients[follower]}" ] && echo moved
at=$endpoints ctl move-leader 77
at=$endpoints ctl move-leader x
ctl move-leader

ctl member add
ctl member add m3
ctl member add m3 --peer-urls no-url
ctl member remove
ctl member remove x
again member remove 77
ctl member update 77 --peer-urls http://127.0.0.1:1
ctl member update "$(id m2)" | shown
ctl member update "$(id m2)" --peer-urls "http://${peers[2]}" | shown
ctl member update "$(id m2)" --peer-urls "http://${peers[0]}" 2>/dev/null | shown
ctl member promote 77
again member promote "$(id m1)"
ctl member promote

mapfile -t fourth < <(addresses 2)
again member add m3 --peer-urls "http://${peers[0]}"
again member add m3 --peer-urls "http://${fourth[1]}" --learner | sed -E '/^ETCD_INITIAL_CLUSTER=/d' | shown
again member add m4 --peer-urls http://127.0.0.1:1 --learner
ctl member list | shown
learner=$(quiet member list | sed -n 's/^\([0-9a-f]*\), unstarted.*/\1/p')
at=$(leader) ctl member promote "$learner" 2>&1 | grep -v '"level"' | shown
member m3 "${fourth[0]}" "${fourth[1]}" "$cluster,m3=http://${fourth[1]}" existing
for _ in $(seq 100); do
  "$ETCDCTL" --endpoints "${clients[0]}" member list | grep -q ', started, m3,' && break
  sleep 0.1
done
ctl member list | shown
at=${fourth[0]} ctl get key
at=${fourth[0]} ctl get key --consistency s
at=${fourth[0]} ctl put key value
at=${fourth[0]} ctl member list --consistency s
at=${fourth[0]} ctl lease grant 10
at=${fourth[0]} ctl endpoint health
again member promote "$learner" | shown
for _ in $(seq 100); do
  "$ETCDCTL" --endpoints "${fourth[0]}" put key value >/dev/null 2>&1 && break
  sleep 0.1
done
ctl member list | shown
at=${fourth[0]} ctl get key
again member remove "$learner" | shown
again member remove "$learner" | shown
ctl member list | shown
ctl get key
