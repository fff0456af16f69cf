package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

const (
	umlHostAddress = "10.0.2.2" // slirp's name for the host's loopback
	buildTimeout   = 5 * time.Minute
	killTimeout    = 20 * time.Second
	consoleTail    = 2000 // bytes of the console shown in errors
	maxSocketPath  = 90   // of 108 in the kernel's sockaddr_un
)

// umlModules are the kernel modules every guest has: device-mapper with its fault targets, and loop.
var umlModules = []string{
	"dm-mod", "dm-bufio", "dm-persistent-data", "dm-bio-prison", "dm-thin-pool", "dm-log", "dm-region-hash", "dm-mirror",
	"dm-snapshot", "dm-flakey", "dm-dust", "dm-delay", "dm-log-writes", "loop",
}

// uml is a node that is a User Mode Linux process.
type uml struct {
	o       Options
	calls   atomic.Int64 // management console calls, for socket names
	volumes volumes

	power sync.Mutex // held by Boot, PowerCut and Shutdown; guards guest
	guest string     // the program that runs inside; "" before the first boot
	mu    sync.Mutex // guards m
	m     *machine   // the present boot; nil when off
}

// machine is one boot of the kernel.
type machine struct {
	cmd      *exec.Cmd
	lifeline io.Closer // closing it kills the kernel and its helpers
	link     *link
	console  mconsole
	runDir   string        // the kernel's pid file and socket, links to volumes
	exited   chan struct{} // closed when no process of the boot is left
	plugged  atomic.Bool   // every volume was plugged in; until then its kernel must not be told of more
}

func newUML(o Options) *uml {
	u := &uml{o: o}
	u.volumes = volumes{node: u, busy: make(gate, 1)}
	return u
}

func (u *uml) ID() string          { return u.o.ID }
func (u *uml) Console() string     { return filepath.Join(u.o.Dir, "console.log") }
func (u *uml) HostAddress() string { return umlHostAddress }
func (u *uml) Dir() string         { return u.o.Dir }

// machine returns the boot that is up.
func (u *uml) machine() (*machine, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.m == nil || !u.m.alive() {
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, u.o.ID)
	}
	return u.m, nil
}

// ready returns the boot that is up, once it takes volumes. An earlier call of
// the management console meets a kernel that does not know its disks yet, and
// panics. The caller holds volumes.busy.
func (u *uml) ready() (*machine, error) {
	m, err := u.machine()
	if err == nil && !m.plugged.Load() {
		err = fmt.Errorf("%w: %s boots", ErrNotRunning, u.o.ID)
	}
	return m, err
}

func (m *machine) alive() bool {
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// dying tells whether the boot has ended or is about to, as after a power cut.
func (m *machine) dying() bool {
	select {
	case <-m.exited:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// Running implements Node.
func (u *uml) Running() bool {
	_, err := u.machine()
	return err == nil
}

// Boot implements Node.
func (u *uml) Boot(ctx context.Context) error {
	u.power.Lock()
	defer u.power.Unlock()
	if u.Running() {
		return fmt.Errorf("node %s: runs already", u.o.ID)
	}
	if err := u.off(); err != nil { // of a kernel that died by itself
		return err
	}
	if u.guest == "" {
		build, cancel := context.WithTimeout(ctx, buildTimeout)
		guest, err := BuildGuest(build)
		cancel()
		if err != nil {
			return fmt.Errorf("boot %s: %w", u.o.ID, err)
		}
		u.guest = guest
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.o.BootTimeout, fmt.Errorf("no answer within %s", u.o.BootTimeout))
	defer cancel()
	begin := time.Now()
	m, err := u.spawn()
	if err != nil {
		return fmt.Errorf("boot %s: %w", u.o.ID, err)
	}
	u.mu.Lock()
	u.m = m
	u.mu.Unlock()
	ready := make(chan error, 1)
	go func() { ready <- m.link.call(ctx, wire.Request{Op: wire.OpPing}) }()
	select {
	case err = <-ready:
	case <-m.exited:
		err = errors.New("the kernel has ended")
	}
	if err == nil {
		err = u.volumes.plugAll(ctx, m)
	}
	if err != nil {
		err = fmt.Errorf("boot %s: %w; end of %s:\n%s", u.o.ID, err, u.Console(), u.tail())
		return errors.Join(err, u.off())
	}
	u.o.Logger.Info("node is up", "took", time.Since(begin).Round(time.Millisecond), "dir", u.o.Dir)
	return nil
}

// spawn starts the kernel.
func (u *uml) spawn() (*machine, error) {
	l, err := newLink()
	if err != nil {
		return nil, err
	}
	m := &machine{link: l, exited: make(chan struct{})}
	undo := func(err error) (*machine, error) {
		l.close()
		if m.runDir != "" {
			_ = os.RemoveAll(m.runDir)
		}
		return nil, err
	}
	if m.runDir, err = u.makeRunDir(); err != nil {
		return undo(err)
	}
	m.console = mconsole{socket: filepath.Join(m.runDir, "node", "mconsole"), local: m.runDir, calls: &u.calls, down: m.exited}
	first := filepath.Join(m.runDir, "disk")
	if err := os.WriteFile(first, make([]byte, 4096), 0o600); err != nil {
		return undo(err)
	}
	config := filepath.Join(u.o.Dir, "guest.json")
	if err := u.writeConfig(config, l); err != nil {
		return undo(err)
	}
	console, err := os.OpenFile(u.Console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return undo(err)
	}
	_, _ = fmt.Fprintf(console, "=== %s boots %s\n", time.Now().UTC().Format(time.RFC3339), u.o.ID)
	// One CPU; the console goes to the log; a kernel that panics ends.
	cmd := exec.Command(u.guest, "supervise", umlBinary(),
		"rootfstype=hostfs", "rootflags=/", "rw", fmt.Sprintf("mem=%dM", u.o.MemoryMiB), "init="+u.guest,
		"con=null", "con0=fd:0,fd:1", "uml_dir="+m.runDir, "umid=node", "ubda="+first, "panic=1", "noreboot",
		"eth0=slirp,,"+slirpBinary(), wire.ConfigEnv+"="+config)
	cmd.Env = append(os.Environ(), "TMPDIR="+memoryDir(m.runDir, u.o.MemoryMiB))
	cmd.Dir = "/"
	var out io.Writer = console
	if u.o.Stderr != nil {
		out = io.MultiWriter(console, u.o.Stderr)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the owner
	cmd.WaitDelay = time.Second
	if m.lifeline, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = console.Close()
		return undo(err)
	}
	m.cmd = cmd
	go func() {
		err := cmd.Wait()
		_ = console.Close()
		u.o.Logger.Debug("kernel ended", slog.Any("status", err))
		close(m.exited)
	}()
	return m, nil
}

func (u *uml) writeConfig(path string, l *link) error {
	share := []string{}
	tmpfs := append([]string{"/tmp"}, u.o.Tmpfs...)
	for _, dir := range append([]string{u.o.Dir}, u.o.Share...) {
		for _, t := range append([]string{"/run"}, tmpfs...) {
			if dir == t || strings.HasPrefix(dir, t+"/") {
				share = append(share, dir)
				break
			}
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	b, err := json.Marshal(wire.Config{
		NodeID: u.o.ID, HostAddress: umlHostAddress, Port: l.port(), Token: l.token,
		Modules: append(append([]string{}, umlModules...), u.o.Modules...), Tmpfs: tmpfs, Share: share, Env: append([]string{"HOME=" + home}, u.o.Env...),
		OrphanSeconds: int(u.o.OrphanTimeout.Seconds()),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// makeRunDir makes a directory whose name is short enough for sockets in it.
func (u *uml) makeRunDir() (string, error) {
	parent := u.o.Dir
	if len(parent) > maxSocketPath-len("/run-0123456789/node/mconsole") {
		parent = ""
	}
	if parent != "" { // what a killed owner has left
		left, _ := filepath.Glob(filepath.Join(parent, "run-*"))
		for _, d := range left {
			_ = os.RemoveAll(d)
		}
	}
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return "", fmt.Errorf("run directory: %w", err)
	}
	return dir, nil
}

// memoryDir is where the kernel keeps its memory: /dev/shm when it has the room.
func memoryDir(fallback string, mib int) string {
	const shm = "/dev/shm"
	var s unix.Statfs_t
	if unix.Statfs(shm, &s) == nil && s.Bavail*uint64(s.Bsize) > 2*uint64(mib)<<20 && unix.Access(shm, unix.W_OK) == nil {
		return shm
	}
	return fallback
}

// off ends the present boot, if there is one, and forgets it.
func (u *uml) off() error {
	u.mu.Lock()
	m := u.m
	u.mu.Unlock()
	if m == nil {
		return nil
	}
	_ = m.lifeline.Close()
	select {
	case <-m.exited:
	case <-time.After(killTimeout):
		_ = m.cmd.Process.Kill()
		return fmt.Errorf("node %s: processes are left after SIGKILL", u.o.ID)
	}
	m.link.close()
	_ = os.RemoveAll(m.runDir)
	u.mu.Lock()
	u.m = nil
	u.mu.Unlock()
	return nil
}

// PowerCut implements Node.
func (u *uml) PowerCut() error {
	// A Boot or Shutdown that is under way must not hold up a power cut: its machine dies first.
	u.mu.Lock()
	if u.m != nil {
		_ = u.m.lifeline.Close()
	}
	u.mu.Unlock()
	u.power.Lock()
	defer u.power.Unlock()
	return u.off()
}

// Shutdown implements Node.
func (u *uml) Shutdown(ctx context.Context) error {
	u.power.Lock()
	defer u.power.Unlock()
	m, err := u.machine()
	if err != nil {
		return u.off()
	}
	if err = m.link.call(ctx, wire.Request{Op: wire.OpPowerOff}); err == nil {
		select {
		case <-m.exited:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil && !m.alive() {
		err = nil // it went down before its answer came through
	}
	if err != nil {
		err = fmt.Errorf("shut down %s: %w (power was cut)", u.o.ID, err)
	}
	return errors.Join(err, u.off())
}

// Exec implements Node.
func (u *uml) Exec(ctx context.Context, c Command) (int, error) {
	p, err := u.Start(ctx, c)
	if err != nil {
		return -1, err
	}
	code, err := p.Wait()
	if ctx.Err() != nil {
		return code, fmt.Errorf("%s: %w", c.Path, context.Cause(ctx))
	}
	return code, err
}

// Start implements Node.
func (u *uml) Start(ctx context.Context, c Command) (Process, error) {
	m, err := u.machine()
	if err != nil {
		return nil, err
	}
	p, err := m.link.start(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", u.o.ID, err)
	}
	return p, nil
}

// tail returns the end of the console's log.
func (u *uml) tail() string {
	b, err := os.ReadFile(u.Console())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-consoleTail):])
}
