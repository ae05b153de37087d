// Command ports prints as many addresses of 127.0.0.1 as its argument says, on which nobody listens now.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

func main() {
	count := 1
	if len(os.Args) > 1 {
		given, err := strconv.Atoi(os.Args[1])
		if err != nil {
			fmt.Fprintf(os.Stderr, "Error: %q is no number of addresses\n", os.Args[1])
			os.Exit(2)
		}
		count = given
	}
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(1)
		}
		defer listener.Close()
		fmt.Println(listener.Addr())
	}
}
