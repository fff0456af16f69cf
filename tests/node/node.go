// Package node is a node in a process: an EC2-like instance for tests, benchmarks and the demo.
//
// A node of kind "uml" is a User Mode Linux kernel, a real Linux that runs as an ordinary process. The
// host's root filesystem is its root, so that the host's programs and files are found under the same
// paths; /run, /tmp and /dev are its own. It reaches the host's loopback at HostAddress, volumes are
// plugged and unplugged while it runs, and a power cut is SIGKILL. A node of kind "loop" drives loop
// devices of the host itself, which needs root and a kernel with device-mapper; one process of a host at a
// time has such nodes, the next one waits in Boot. Kind, SoloKind and OwnKernel say which kind is taken when.
//
// A volume shows up in a node as /dev/mapper/ebsvol-<volume id>, a block device of exactly the volume's
// size whose device-mapper UUID is EBSVOL-<volume id>: its identity, as the NVMe serial is on EC2.
//
// What it is not: a sandbox. A program in a node can change the host's files.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/node/internal/ebs"
)

// Kinds of nodes.
const (
	KindUML  = "uml"
	KindLoop = "loop"
)

// UUIDPrefix begins the device-mapper UUID of a volume in a node; the volume id follows.
const UUIDPrefix = ebs.UUIDPrefix

// KindEnv names the environment variable that chooses the kind when Options.Kind is empty.
const KindEnv = "NODE"

// Environment of every command that runs in a node.
const (
	InsideEnv      = "EBB_IN_NODE"      // "1"
	IDEnv          = "EBB_NODE_ID"      // Options.ID
	HostAddressEnv = "EBB_HOST_ADDRESS" // Node.HostAddress
)

var (
	// ErrUnavailable is returned by New when this machine lacks what the kind needs; the text says what.
	ErrUnavailable = errors.New("node: not available on this machine")
	// ErrBusy is returned by Detach while the volume's device is open in the node.
	ErrBusy = ebs.ErrBusy
	// ErrNotRunning is returned for what needs a running node.
	ErrNotRunning = errors.New("node: not running")
	// ErrNotAttached is returned for a volume that the node does not have.
	ErrNotAttached = errors.New("node: volume is not attached")
	// ErrNoSlot is returned by Attach when the node has all the volumes it can have.
	ErrNoSlot = errors.New("node: no free slot for a volume")
)

// Node is one instance. All methods may be called at the same time from several goroutines.
type Node interface {
	// ID is the instance id.
	ID() string
	// Boot starts the node and returns when it executes commands and every attached volume is there. It
	// fails when the node runs already.
	Boot(ctx context.Context) error
	// Running tells whether the node is up. A kernel that has died is noticed.
	Running() bool
	// PowerCut stops the node at once and without warning. When it returns nothing of it is left running.
	// On a stopped node it does nothing.
	PowerCut() error
	// Shutdown ends the node's processes, unmounts its filesystems and stops it, or cuts its power when
	// ctx ends. On a stopped node it does nothing.
	Shutdown(ctx context.Context) error
	// Exec runs a command to its end. A command that ran has a nil error whatever its exit code, which is
	// 128 + the signal's number for one that a signal ended. When ctx ends the command is killed.
	Exec(ctx context.Context, c Command) (exitCode int, err error)
	// Start begins a command and returns while it runs. It ends with the node, or when ctx does.
	Start(ctx context.Context, c Command) (Process, error)
	// Attach plugs in a volume whose bytes lie in the file path of the host, which is made or extended to
	// sizeBytes. It stays attached over power cuts, shutdowns and boots. Repeating it with the same path
	// brings about the same state. device is only recorded, as the name is on Nitro instances.
	Attach(ctx context.Context, volumeID, device, path string, sizeBytes int64) error
	// Detach unplugs a volume; it fails with ErrBusy while the volume is in use and with ErrNotAttached
	// when it is not there.
	Detach(ctx context.Context, volumeID string) error
	// Resize gives an attached volume a new size. Its users see the block device change.
	Resize(ctx context.Context, volumeID string, sizeBytes int64) error
	// SetVolumeFault breaks a volume below its users, who see the same device, or mends it. The fault
	// stays over boots, until it is changed or the volume is detached.
	SetVolumeFault(ctx context.Context, volumeID string, f Fault) error
	// Pause stops every write of the node to its volumes until resume is called, which is safe to repeat;
	// a stopped node has none. Meanwhile a UML node stands still as a whole.
	Pause(ctx context.Context) (resume func(), err error)
	// Console is the path of the console's log, which all boots append to.
	Console() string
	// HostAddress is the address of the host's loopback as seen from the node.
	HostAddress() string
	// Dir is a directory that the host and the node both see under this path. It outlives the node.
	Dir() string
}

// Command describes a program to run in a node.
type Command struct {
	// Path is the program, searched in the node's PATH when it has no slash.
	Path string
	// Args are its arguments, without the program's own name.
	Args []string
	// Env is added to the node's environment, as "KEY=value".
	Env []string
	// Dir is the working directory; "" is "/".
	Dir string
	// Stdin is fed to the command; nil is no input. A Read that blocks may outlast the command.
	Stdin io.Reader
	// Stdout and Stderr receive output; nil drops it. They are written by one goroutine, in order.
	Stdout, Stderr io.Writer
}

// Process is a command that was started.
type Process interface {
	// Pid is the process id inside the node.
	Pid() int
	// Wait returns when the command has ended and its output is written; as Exec it returns the exit code.
	// It may be called several times. A node that stops under it gives an error.
	Wait() (exitCode int, err error)
	// Done is closed when Wait would return at once.
	Done() <-chan struct{}
	// Signal sends a signal to the command itself.
	Signal(sig syscall.Signal) error
	// Kill sends SIGKILL to the command and its process group.
	Kill() error
}

// Fault kinds.
const (
	FaultNone        = ebs.FaultNone        // the volume works
	FaultError       = ebs.FaultError       // reads and writes fail
	FaultErrorReads  = ebs.FaultErrorReads  // reads fail
	FaultErrorWrites = ebs.FaultErrorWrites // writes fail
	FaultDelay       = ebs.FaultDelay       // reads and writes take DelayMS longer
	FaultDust        = ebs.FaultDust        // reads of Blocks fail until they are written
)

// Fault is a way in which a volume is broken.
type Fault struct {
	Kind    string  // "" is FaultNone
	DelayMS int     // for FaultDelay, in milliseconds
	Blocks  []int64 // for FaultDust, numbers of 4 KiB blocks
}

// Options say what node to make.
type Options struct {
	// Kind is KindUML, KindLoop or "", which is Kind().
	Kind string
	// ID is the instance id; required.
	ID string
	// Dir holds the console's log and the files shared with the node; required. It is created.
	Dir string
	// MemoryMiB is the memory of the node; 0 is 512. Unused by KindLoop.
	MemoryMiB int
	// Env is added to every command.
	Env []string
	// Tmpfs are further directories that are the node's own, empty at each boot. Unused by KindLoop.
	Tmpfs []string
	// Share are directories below /tmp, /run or Tmpfs that the node sees as the host does. Unused by
	// KindLoop.
	Share []string
	// Modules are further kernel modules to load, by name. Unused by KindLoop.
	Modules []string
	// Discard makes volumes accept discards. EBS volumes do not, so it is off unless asked for.
	Discard bool
	// BootTimeout limits Boot; 0 is 60 s.
	BootTimeout time.Duration
	// OrphanTimeout is how long a node lives on without its host; 0 is 60 s, negative for ever. A node
	// whose owner has died ends at once in any case.
	OrphanTimeout time.Duration
	// Logger gets what happens to the node; nil drops it.
	Logger *slog.Logger
	// Stderr gets a copy of the console; nil for none.
	Stderr io.Writer
}

// New makes a node, without booting it.
func New(o Options) (Node, error) {
	if o.ID == "" || o.Dir == "" {
		return nil, errors.New("node: Options.ID and Options.Dir are required")
	}
	if o.Kind == "" {
		o.Kind = Kind()
	}
	if err := Available(o.Kind); err != nil {
		return nil, err
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 512
	}
	if o.BootTimeout == 0 {
		o.BootTimeout = time.Minute
	}
	if o.OrphanTimeout == 0 {
		o.OrphanTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("node", o.ID)
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if o.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if o.Kind == KindLoop {
		return newLoop(o), nil
	}
	return newUML(o), nil
}

// VolumePath is the device of an attached volume inside a node.
func VolumePath(volumeID string) string { return ebs.Path(volumeID) }
