// Command ebb grows and shrinks live disks: it starts Ebb's Temporal workflows,
// follows and steers them. The logic is in internal/cmd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ebb-storage/ebb/starter/internal/cmd"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(int(cmd.Main(ctx, version, os.Args[1:], ui.Std())))
}
