package dm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	moduleTimeout = 20 * time.Second
	// initCompressed lets the kernel unpack the file (5.17 and later).
	initCompressed = 4
)

// moduleRoots are where modules lie, each with a directory named after the kernel's release. The last is
// where Debian puts those of User Mode Linux.
var moduleRoots = [...]string{"/lib/modules", "/usr/lib/modules", "/usr/lib/uml/modules"}

// moduleOf names the module of a target where it is not "dm-" and the target's name.
func moduleOf(target string) string {
	switch target {
	case "linear", "striped", "error":
		return "dm_mod"
	case "thin":
		return "dm_thin_pool"
	case "snapshot-origin", "snapshot-merge":
		return "dm_snapshot"
	}
	return "dm_" + strings.ReplaceAll(target, "-", "_")
}

// EnsureTargets sees to it that the named targets can be used, loading the modules of those that are
// missing: by the kernel's own loader, which reaches the host's modules from inside a container, then by
// modprobe, then by itself. It is safe to repeat. The error names what is missing and why, and the
// kernel's lockdown mode; it is ErrUnsupported.
func (c *Client) EnsureTargets(ctx context.Context, names ...string) error {
	missing, err := c.missing(names)
	if err != nil || len(missing) == 0 {
		return err
	}
	reasons := map[string]error{}
	for _, t := range missing {
		if err := checkName(t); err != nil {
			return fail(opTargets, t, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.version[1] >= minorTargetByName {
			if _, err := c.ioctl(cmdTargetVersion, request{name: t}, bufferBytes); err == nil {
				continue
			}
		}
		reasons[t] = loadModule(ctx, moduleOf(t))
	}
	if missing, err = c.missing(names); err != nil || len(missing) == 0 {
		return err
	}
	causes := []error{ErrUnsupported}
	for _, t := range missing {
		reason := reasons[t]
		if reason == nil {
			reason = errors.New("module does not provide it")
		}
		causes = append(causes, fmt.Errorf("target %s (module %s): %w", t, moduleOf(t), reason))
	}
	return &Error{Op: opTargets, Name: strings.Join(missing, ", "), Err: fmt.Errorf("%w; lockdown: %s", joinLine(causes), Lockdown())}
}

func (c *Client) missing(names []string) ([]string, error) {
	have, err := c.Targets()
	if err != nil {
		return nil, err
	}
	want := map[string]bool{}
	for _, n := range names {
		if _, ok := have[n]; !ok {
			want[n] = true
		}
	}
	return slices.Sorted(maps.Keys(want)), nil
}

// Lockdown returns the kernel's lockdown mode: "none", "integrity" or "confidentiality", or "unknown" when
// the kernel does not tell. Any but none refuses modules that the kernel's vendor did not sign.
func Lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return "unknown"
	}
	return chosen(string(b))
}

// chosen returns the word in brackets.
func chosen(s string) string {
	_, s, found := strings.Cut(s, "[")
	s, _, closed := strings.Cut(s, "]")
	if !found || !closed {
		return "unknown"
	}
	return s
}

// loadModule loads a module by name and those it depends on. One that is loaded or built in is fine.
func loadModule(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
	defer cancel()
	var reasons []error
	if path, err := exec.LookPath("modprobe"); err == nil {
		cmd := exec.CommandContext(ctx, path, "-q", name)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		reasons = append(reasons, fmt.Errorf("modprobe: %w %q", err, strings.TrimSpace(string(out))))
	}
	files, err := moduleFiles(name)
	if err != nil {
		return joinLine(append(reasons, err))
	}
	for _, f := range files {
		if err := initModule(f); err != nil {
			return joinLine(append(reasons, fmt.Errorf("load %s: %w", f, err)))
		}
	}
	return nil
}

// moduleFiles returns the files to load, in order. None means that the module is built in.
func moduleFiles(name string) ([]string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var last error
	for _, root := range moduleRoots {
		dir := filepath.Join(root, release)
		files, err := moduleFilesIn(dir, name)
		if err == nil {
			return files, nil
		}
		if last == nil || !errors.Is(err, os.ErrNotExist) {
			last = err
		}
	}
	return nil, last
}

func moduleFilesIn(dir, name string) ([]string, error) {
	builtin, err := findLine(filepath.Join(dir, "modules.builtin"), name)
	if err == nil && builtin != "" {
		return nil, nil
	}
	line, err := findLine(filepath.Join(dir, "modules.dep"), name)
	if err != nil {
		return nil, err
	}
	if line == "" {
		return nil, fmt.Errorf("no module %s in %s", name, dir)
	}
	own, deps, _ := strings.Cut(line, ":")
	files := append([]string{own}, strings.Fields(deps)...)
	slices.Reverse(files) // a module follows what it depends on
	for i, f := range files {
		if !filepath.IsAbs(f) {
			files[i] = filepath.Join(dir, f)
		}
	}
	return files, nil
}

// findLine returns the line of a modules file whose first word is the file of the named module.
func findLine(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		first, _, _ := strings.Cut(s.Text(), ":")
		if moduleName(first) == name {
			return s.Text(), nil
		}
	}
	return "", s.Err()
}

// moduleName returns the name of the module in a file such as kernel/drivers/md/dm-mod.ko.xz.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func initModule(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = initCompressed
	}
	if err := unix.FinitModule(fd, "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// joinLine joins errors on one line.
func joinLine(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w; %w", errs[0], joinLine(errs[1:]))
}
