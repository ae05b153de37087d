# What no two clusters have in common: ids, addresses, terms, times, sizes. Tables lose their padding, because the
# width of a column is that of what was masked.
s/127\.0\.0\.1:[0-9]+/ADDRESS/g
s/\b[0-9a-f]{15,16}\b/ID/g
s/"(cluster_id|member_id|leader|ID|raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota)":[0-9]+/"\1":N/g
s/"(hash|compact_hash)":[0-9]+/"\1":N/g
s/^"(ClusterID|MemberID|RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota|Leader|ID)" : [1-9][0-9]*/\1 : N/
s/^"Lease" : [0-9]{9,}/Lease : N/
s/"version":"3\.[0-9.]+"/"version":"VERSION"/g
s/took( =)? [0-9.]+[a-zµ]+/took TIME/g
s/^"Took" : .*/"Took" : TIME/
s/(true|false) │ [0-9.]+[a-zµ]+ │/\1 │ TIME │/
s/"took":"[^"]*"/"took":"TIME"/g
s/"size":"[^"]*"/"size":"SIZE"/g
s/remaining\([0-9]+s\)/remaining(Ns)/g
s/ +/ /g
s/(─|[┌┬┐├┼┤└┴┘])+/─/g
s/"ts":"[^"]*"/"ts":"TIME"/g
s/,"stacktrace":"[^"]*"//g
s/0x[0-9a-f]{8,}/POINTER/g
/[0-9]+ \/ 10000/d
