package main

import "regexp"

// deliberate is a kind of difference that is meant.
type deliberate struct {
	// kind of the difference, as it is printed.
	kind   *regexp.Regexp
	reason string
}

// deliberates are all that are known. What is not compared, and differs: Downgrade ENABLE is refused where etcd would
// begin to become the version before; a member that is added as a voter votes as soon as it has caught up, and not
// before it has started, so that the cluster needs no more members for its majority in between; /version has one more field, "quorate", which etcd's clients do not read and
// readers of JSON pass over; a stream over JSON that begins with what is no message is told so, where etcd says nothing
// and lets it hang; numbers in JSON with a point or an exponent beyond 2^53 are refused, as strings they are taken;
// of the compacted revision a watch is always told all changes, where etcd leaves out those that a later change of that
// revision made undone (a put, and a delete from a key on, in one transaction), once its compaction has come by; and a key that a
// transaction deleted and put again is not compacted at just that revision: etcd 3.7.3 drops the key and, when it is
// read, ends with "range failed to find revision pair"; here it stays.
var deliberates = []deliberate{
	{
		regexp.MustCompile(`^(Cluster/MemberList: |JSON /v3/cluster/member/list: \.)members.peerURLs`),
		"a server alone has no address for other members, and makes none up",
	},
	{
		regexp.MustCompile(`^(Maintenance/Status: |JSON /v3/maintenance/status: \.)dbSizeQuota`),
		"quorate server has no limit unless one is given, where etcd, and quorate etcd, begin with one of 2 GiB",
	},
	{
		regexp.MustCompile(`^v3(lockpb.Lock|electionpb.Election)/.*: etcd Unknown "(.*)", quorate NotFound "(.*)"$`),
		"etcd calls every failure in its locks and elections Unknown; here they keep their codes, and the texts " +
			"are etcd's",
	},
	{
		regexp.MustCompile(`^v3electionpb.Election/Campaign: header.revision$`),
		"etcd tells the revision at which the candidate joined the queue, here it is that of the election",
	},
	{
		regexp.MustCompile(`^JSON /v3/lease/keepalive: content: etcd "", quorate "application/json"$`),
		"etcd ends the answer to a request that is no JSON without a word, here it says why",
	},
	{
		regexp.MustCompile(`^Cluster/MemberUpdate: etcd NotFound ".*", quorate InvalidArgument ".*URLs are invalid"$`),
		"a member has one address for other members, and an update without one is refused whoever it is for",
	},
	{
		regexp.MustCompile(`^Maintenance/HashKV: (compact_revision|hash_revision|etcd OK "", quorate OutOfRange ".*compacted")$`),
		"etcd remembers the hashes of its last compactions and tells those again: when the keys are gone, with the " +
			"compaction of that time, and for the newest revision once revision 0 was compacted",
	},
	{
		regexp.MustCompile(`^KV/Txn: etcd OK "", quorate ResourceExhausted ".* reply is too large: .*"$`),
		"the answer to a transaction has at most 17.5 MiB, and says whether something was written",
	},
	{
		regexp.MustCompile(`^Watch: progress is told by etcd: false, by quorate: true, .* compaction has ended$`),
		"etcd tells a stream's progress no more once a watch of it was ended by compaction, until the client " +
			"cancels that watch; here such a watch is not waited for",
	},
}

// deliberateOf is the entry for a kind of difference.
func deliberateOf(kind string) *deliberate {
	for index := range deliberates {
		if deliberates[index].kind.MatchString(kind) {
			return &deliberates[index]
		}
	}
	return nil
}
