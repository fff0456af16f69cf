package qemu_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tools are what the agent runs on a node, and what the tests run besides.
var tools = []string{"mkfs.xfs", "thin_check", "thin_restore", "xfs_repair"}

// loaded are the modules that init loads. Those of device-mapper are only put where the agent finds them:
// it loads them itself.
var (
	loaded = []string{"nvme", "crc32c_generic", "ext4", "xfs"}
	found  = []string{"dm_mod", "dm_thin_pool", "dm_mirror"}
)

// kernel is one that scripts/fetch-kernel has unpacked.
type kernel struct {
	image, release string
	modules        string // directory of modules.dep
}

// newestKernel returns the latest kernel there is, or skips the test.
func newestKernel(t *testing.T) kernel {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		require.NoError(t, err)
		cache = filepath.Join(home, ".cache")
	}
	dir := filepath.Join(cache, "ebb", "qemu")
	images, err := filepath.Glob(filepath.Join(dir, "*", "boot", "vmlinuz-*"))
	require.NoError(t, err)
	// Those in hidden directories are being unpacked.
	images = slices.DeleteFunc(images, func(p string) bool { return strings.HasPrefix(p, dir+"/.") })
	if len(images) == 0 {
		t.Skipf("no kernel for a virtual machine in %s: run scripts/fetch-kernel %s", dir, dir)
	}
	newest := slices.MaxFunc(images, func(a, b string) int { return built(t, a).Compare(built(t, b)) })
	release := strings.TrimPrefix(filepath.Base(newest), "vmlinuz-")
	return kernel{newest, release, filepath.Join(filepath.Dir(filepath.Dir(newest)), "lib", "modules", release)}
}

// buildArchive makes the root filesystem of the machine, a cpio archive.
func buildArchive(t *testing.T, k kernel) string {
	root := filepath.Join(t.TempDir(), "root")
	for _, p := range []struct{ path, tool, pkg string }{
		{"init", "build", "./init"},
		{"qemu.test", "test", "."},
	} {
		args := []string{p.tool, "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(root, p.path)}
		if p.tool == "test" {
			args = append(args, "-c")
		}
		c := exec.CommandContext(t.Context(), "go", append(args, p.pkg)...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for _, tool := range tools {
		addProgram(t, root, tool)
	}
	addModules(t, root, k)

	var names []string
	require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		rel, e := filepath.Rel(root, path)
		names = append(names, rel)
		return errors.Join(err, e)
	}))
	archive := filepath.Join(filepath.Dir(root), "archive")
	out, err := os.Create(archive)
	require.NoError(t, err)
	defer out.Close()
	c := exec.CommandContext(t.Context(), "cpio", "--create", "--format=newc", "--quiet", "--owner=+0:+0", "--null")
	var said bytes.Buffer
	c.Dir, c.Stdin, c.Stdout, c.Stderr = root, strings.NewReader(strings.Join(names, "\x00")+"\x00"), out, &said
	require.NoError(t, c.Run(), "%s", &said)
	return archive
}

// look finds a program, also where only root's PATH leads.
func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	return path, err
}

// addProgram copies a program of the host with the libraries that its loader wants.
func addProgram(t *testing.T, root, name string) {
	path, err := look(name)
	require.NoError(t, err)
	add(t, root, filepath.Join("/usr/sbin", name), path)
	out, err := exec.CommandContext(t.Context(), "ldd", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for line := range strings.Lines(string(out)) {
		// "libc.so.6 => /lib/libc.so.6 (0x1)", or the loader alone: "/lib64/ld-linux.so.2 (0x1)"
		for _, word := range strings.Fields(line) {
			if filepath.IsAbs(word) {
				add(t, root, word, word)
			}
		}
	}
}

// addModules copies the kernel's modules that the machine needs, and lists those that init loads.
func addModules(t *testing.T, root string, k kernel) {
	inside := filepath.Join("/lib/modules", k.release)
	needs := map[string][]string{} // by module: its file, then what it depends on
	b, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		file, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[moduleName(file)] = append([]string{file}, strings.Fields(deps)...)
	}
	b, err = os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	require.NoError(t, err)
	for file := range strings.FieldsSeq(string(b)) {
		needs[moduleName(file)] = nil
	}
	var list strings.Builder
	for i, name := range slices.Concat(loaded, found) {
		files, known := needs[name]
		require.True(t, known, "the kernel has no module %s", name)
		for _, file := range slices.Backward(files) { // a module follows what it depends on
			to := filepath.Join(inside, file)
			add(t, root, to, filepath.Join(k.modules, file))
			if i < len(loaded) {
				_, _ = fmt.Fprintln(&list, to)
			}
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "modules"), []byte(list.String()), 0o644))
	for _, index := range []string{"modules.dep", "modules.builtin"} {
		add(t, root, filepath.Join(inside, index), filepath.Join(k.modules, index))
	}
}

// moduleName returns the name of the module in a file such as kernel/drivers/md/dm-mod.ko.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// add copies a file of the host, or what a link there leads to.
func add(t *testing.T, root, to, from string) {
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	to = filepath.Join(root, to)
	require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(t, os.WriteFile(to, b, 0o755))
}
