# members: 1
# Locks and elections: who waits, who follows whom, what is left.

# names: keys of locks and elections end in the id of a lease.
background first lock mutex
has first 1
background second lock mutex
sleep 0.5
ctl get --prefix mutex -w json >answer
sed -E 's/"(key|lease)":("[^"]*"|[0-9]+)/"\1":X/g' answer
until_done first TERM
has second 1
until_done second TERM
ctl get --prefix mutex --count-only -w fields
ctl lock mutex -- sh -c 'echo "holding $ETCD_LOCK_REV" | tr -d 0-9; echo "$ETCD_LOCK_KEY" | cut -d/ -f1'
ctl lock mutex --ttl 5 sh -- -c 'exit 7'
ctl lock mutex false
ctl lock mutex /no/such/program
ctl lock
ctl lock mutex --ttl x true

background leader elect post one
has leader 2
background observer elect --listen post
has observer 2
background follower elect post two
sleep 0.5
until_done leader TERM
has follower 2
has observer 4
until_done follower TERM
until_done observer TERM
ctl get --prefix post --count-only -w fields
ctl elect
ctl elect post
ctl elect post a b
ctl elect --listen
