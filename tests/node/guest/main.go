// Command guest is what runs inside a node of the bench, and next to it. As PID 1 of a User Mode Linux
// kernel it prepares the guest and keeps its server alive; "guest serve" is that server, which dials the
// host and does what it asks; "guest supervise" runs on the host and sees to it that a kernel and all
// its helper processes end together. It is built and started by package node; nobody types it.
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[1] == "supervise":
		var code int
		if code, err = supervise(os.Args[2:]); err == nil {
			os.Exit(code)
		}
	case len(os.Args) > 1 && os.Args[1] == "serve":
		err = serve()
	case os.Getpid() == 1:
		err = initialize()
	default:
		err = fmt.Errorf("must be PID 1 of a node's guest")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}
