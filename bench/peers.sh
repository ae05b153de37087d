#!/bin/bash
# Builds the systems that bench/compare measures against, where they are not packages: etcd 3.7.3
# (server and etcdctl) and etcd's own load generator, "benchmark". Redis is a package of every
# distribution (Debian: redis-server).
#
#   bench/peers.sh DIR        leaves DIR/etcd, DIR/etcdctl and DIR/benchmark
#   PATH=DIR:$PATH bench/compare
#
# Needs Go and a module proxy; about three minutes and 1 GB of Go's module cache. Everything is
# built in scratch modules below DIR: `go install package@version` refuses these modules, because
# their go.mod files carry replace lines. The load generator is of 3.6.8, the newest release whose
# root module resolves outside of its own repository; it drives 3.7 servers.
set -euo pipefail

etcd_version=v3.7.3
benchmark_version=v3.6.8

[ $# -eq 1 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 128; }
command -v go >/dev/null || { echo "Error: go is not in PATH" >&2; exit 1; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
scratch=$(mktemp -d "$target/build.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export GOFLAGS=-mod=mod GOWORK=off

# module NAME: a fresh module in which the rest of a function works.
module() { mkdir "$scratch/$1" && cd "$scratch/$1" && go mod init "scratch/$1" 2>/dev/null; }

build_etcd() {
    module etcd
    mkdir server ctl
    cat >server/main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
    cat >ctl/main.go <<'GO'
package main

import "go.etcd.io/etcd/etcdctl/v3/ctlv3"

func main() { ctlv3.MustStart() }
GO
    go get "go.etcd.io/etcd/server/v3@$etcd_version" "go.etcd.io/etcd/etcdctl/v3@$etcd_version"
    go mod tidy
    go build -o "$target/etcd" ./server
    go build -o "$target/etcdctl" ./ctl
}

build_benchmark() {
    module benchmark
    cat >tools.go <<'GO'
//go:build tools

package tools

import _ "go.etcd.io/etcd/v3/tools/benchmark"
GO
    go get "go.etcd.io/etcd/v3/tools/benchmark@$benchmark_version"
    go mod tidy
    go build -o "$target/benchmark" go.etcd.io/etcd/v3/tools/benchmark
}

(build_etcd)
(build_benchmark)
"$target/etcd" --version | head -1
"$target/benchmark" --help >/dev/null && echo "etcd's benchmark $benchmark_version"
echo "built in $target"
