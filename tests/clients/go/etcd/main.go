// Command etcd is etcd's server as its own releases build it: the side that Quorate is compared with.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
