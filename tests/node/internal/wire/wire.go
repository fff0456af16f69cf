// Package wire is the language between the host's side of a node (package node) and the program that
// runs as PID 1 in its guest: length-prefixed frames over TCP connections that the guest dials, each of
// which serves one request. It knows nothing of User Mode Linux or of device-mapper.
package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Frame kinds. The guest opens a connection with Hello; the host answers with one Request when it has
// one; what follows depends on the operation.
const (
	Hello     byte = 'H' // guest to host: Greeting
	Ask       byte = 'R' // host to guest: Request
	Stdin     byte = 'i' // host to guest: bytes for the command's standard input
	StdinEOF  byte = 'I' // host to guest: no more standard input
	Stdout    byte = 'o' // guest to host: bytes from the command
	Stderr    byte = 'e' // guest to host: bytes from the command
	Started   byte = 'p' // guest to host: Process
	Exited    byte = 'x' // guest to host: Exit, the last frame of OpExec
	Answer    byte = 'a' // guest to host: Reply, the last frame of every other operation
	maxFrame       = 1 << 20
	headerLen      = 5
	// Chunk is the size, in bytes, in which streams are cut into frames.
	Chunk = 32 << 10
)

// ConfigEnv names the environment variable, set on the kernel's command line, that tells the guest
// where its Config lies.
const ConfigEnv = "EBB_NODE_CONFIG"

// Operations of a Request.
const (
	OpExec     = "exec"
	OpAttach   = "attach"
	OpDetach   = "detach"
	OpReload   = "reload"
	OpPowerOff = "poweroff"
	OpPing     = "ping"
	OpSignal   = "signal"
)

// Codes of a Reply's error.
const (
	CodeBusy = "busy" // the volume's device is open
)

// Config is what the host writes, before a boot, for the guest to read.
type Config struct {
	NodeID        string   `json:"nodeId"`
	HostAddress   string   `json:"hostAddress"`
	Port          int      `json:"port"`
	Token         string   `json:"token"`
	Modules       []string `json:"modules"`
	Tmpfs         []string `json:"tmpfs"`         // directories that become the guest's own
	Share         []string `json:"share"`         // host directories that stay visible below Tmpfs
	Env           []string `json:"env"`           // added to every command
	OrphanSeconds int      `json:"orphanSeconds"` // power off when the host cannot be reached for so long
}

// Greeting proves that a connection comes from this boot of the guest.
type Greeting struct {
	Token string `json:"token"`
}

// Request asks the guest for one operation.
type Request struct {
	Op     string  `json:"op"`
	Exec   *Exec   `json:"exec,omitempty"`
	Volume *Volume `json:"volume,omitempty"`
	Signal *Signal `json:"signal,omitempty"`
}

// Exec describes a command.
type Exec struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`
	Dir   string   `json:"dir,omitempty"`
	Stdin bool     `json:"stdin,omitempty"`
}

// Volume is what the guest must know to present a volume.
type Volume struct {
	ID     string  `json:"id"`
	Disk   string  `json:"disk"`  // the device below it, such as /dev/ubdb
	Bytes  int64   `json:"bytes"` // the size the volume has, at most that of the disk
	Fault  string  `json:"fault,omitempty"`
	Delay  int     `json:"delay,omitempty"` // milliseconds
	Blocks []int64 `json:"blocks,omitempty"`
}

// Process tells that a command was started.
type Process struct {
	PID int `json:"pid"`
}

// Signal is one to send to a command that runs, or to its whole process group. It has a request of its own,
// which gets through when a command does not read its input.
type Signal struct {
	PID    int  `json:"pid"`
	Number int  `json:"number"`
	Group  bool `json:"group,omitempty"`
}

// Exit tells how a command ended. Error is set when it could not be started.
type Exit struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Reply ends every operation but OpExec. An empty Error is success.
type Reply struct {
	Error string `json:"error,omitempty"`
	Code  string `json:"code,omitempty"`
}

// ErrFrame is returned for a frame that no honest peer sends.
var ErrFrame = errors.New("wire: bad frame")

// Write sends one frame. It does one Write, so frames of several goroutines do not mix as long as the
// writer is serialized.
func Write(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("%w: %d bytes", ErrFrame, len(payload))
	}
	b := make([]byte, headerLen+len(payload))
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	b[4] = kind
	copy(b[headerLen:], payload)
	_, err := w.Write(b)
	return err
}

// WriteJSON sends v as one frame.
func WriteJSON(w io.Writer, kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("wire: encode: %w", err)
	}
	return Write(w, kind, b)
}

// Read receives one frame. It returns io.EOF, unwrapped, when the peer has closed between frames.
func Read(r *bufio.Reader) (kind byte, payload []byte, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("wire: short frame: %w", err)
	}
	return h[4], payload, nil
}

// ReadJSON receives one frame of the wanted kind into v.
func ReadJSON(r *bufio.Reader, want byte, v any) error {
	kind, b, err := Read(r)
	if err != nil {
		return err
	}
	if kind != want {
		return fmt.Errorf("%w: got %q, want %q", ErrFrame, kind, want)
	}
	return Decode(b, v)
}

// Decode parses a frame's JSON payload.
func Decode(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return nil
}
