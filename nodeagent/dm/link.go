package dm

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const mapperDir = "/dev/mapper"

// makeLink sees to it that /dev/mapper/<name> leads to d. udev may do the same at the same time, and
// nothing depends on the link, so what goes wrong here is not an error.
func makeLink(name string, d Dev) {
	path := filepath.Join(mapperDir, name)
	if leadsTo(path, d) {
		return
	}
	_ = os.MkdirAll(mapperDir, 0o755)
	temp := filepath.Join(mapperDir, fmt.Sprintf(".%s.%d", name, os.Getpid()))
	_ = os.Remove(temp)
	if os.Symlink(linkTarget(d), temp) != nil {
		return
	}
	if os.Rename(temp, path) != nil {
		_ = os.Remove(temp)
	}
}

// removeLink removes /dev/mapper/<name> unless it leads elsewhere by now.
func removeLink(name string, d Dev) {
	if path := filepath.Join(mapperDir, name); leadsTo(path, d) {
		_ = os.Remove(path)
	}
}

func linkTarget(d Dev) string { return fmt.Sprintf("../dm-%d", d.Minor) }

// leadsTo tells whether path is the link to d's node, or, as dmsetup makes it, such a node itself.
func leadsTo(path string, d Dev) bool {
	if target, err := os.Readlink(path); err == nil {
		return target == linkTarget(d)
	}
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && devOf(st.Rdev) == d
}
