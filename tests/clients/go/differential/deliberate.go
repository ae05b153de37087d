package main

import "regexp"

// deliberate is a kind of difference that is meant.
type deliberate struct {
	// kind of the difference, as it is printed.
	kind   *regexp.Regexp
	reason string
}

// deliberates are all that are known.
var deliberates = []deliberate{
	{
		regexp.MustCompile(`^Cluster/MemberList: members.peerURLs: length$`),
		"a server alone has no address for other members, and makes none up",
	},
	{
		regexp.MustCompile(`^Maintenance/Status: dbSizeQuota$`),
		"there is no limit unless one is given, where etcd begins with one of 2 GiB",
	},
	{
		regexp.MustCompile(`^Maintenance/HashKV: (compact_revision|etcd OK "", quorate OutOfRange ".*compacted")$`),
		"etcd remembers the hashes of its last compactions, and tells them when the keys are gone",
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
