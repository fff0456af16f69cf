package node

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Kind returns the kind of node that KindEnv asks for, else KindUML: a node with a kernel of its own,
// which may run beside others.
func Kind() string {
	if k := os.Getenv(KindEnv); k != "" {
		return k
	}
	return KindUML
}

// SoloKind returns the kind for tests whose node is the only one: what KindEnv asks for, else KindLoop when
// root may use device-mapper here with the targets that matter, else KindUML.
func SoloKind() string {
	if os.Getenv(KindEnv) == "" && Available(KindLoop) == nil {
		return KindLoop
	}
	return Kind()
}

// OwnKernel returns nil when this machine can run nodes that each have a kernel of their own, else
// ErrUnavailable with the reason. Whole agents need that: on one host they would share the port, every
// volume, the mounts, and device-mapper's parameters.
func OwnKernel() error {
	switch k := os.Getenv(KindEnv); k {
	case "", KindUML:
		return Available(KindUML)
	case KindLoop:
		return fmt.Errorf("%w: %s=loop makes this host the node, and these nodes each need a kernel of their own: leave %[2]s unset, or set it to uml", ErrUnavailable, KindEnv)
	default:
		return Available(k)
	}
}

// Available returns nil when this machine can run nodes of a kind, else ErrUnavailable with the reason.
func Available(kind string) error {
	missing := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, kind, fmt.Sprintf(format, args...))
	}
	switch kind {
	case KindUML:
		if runtime.GOARCH != "amd64" {
			return missing("User Mode Linux runs on amd64 (x86-64) alone, and this is %s", runtime.GOARCH)
		}
		for _, p := range []string{umlBinary(), slirpBinary()} {
			if _, err := exec.LookPath(p); err != nil {
				return missing("%s is not installed (Debian: user-mode-linux slirp dmsetup)", p)
			}
		}
		return nil
	case KindLoop:
		if os.Geteuid() != 0 {
			return missing("needs root")
		}
		if _, err := os.Stat("/dev/mapper/control"); err != nil {
			return missing("this kernel has no device-mapper")
		}
		out, err := exec.Command("dmsetup", "targets").CombinedOutput()
		if err != nil {
			return missing("dmsetup targets: %v", err)
		}
		for _, t := range []string{"linear", "thin-pool", "thin", "mirror"} {
			if !strings.Contains("\n"+string(out), "\n"+t+" ") {
				return missing("this kernel has no device-mapper target %s", t)
			}
		}
		if _, err := os.Stat("/dev/loop-control"); err != nil {
			return missing("this kernel has no loop devices")
		}
		return nil
	}
	return fmt.Errorf("%w: unknown kind %q", ErrUnavailable, kind)
}

func umlBinary() string {
	if p := os.Getenv("EBB_UML"); p != "" {
		return p
	}
	return "linux.uml"
}

func slirpBinary() string {
	if p, err := exec.LookPath("slirp-fullbolt"); err == nil {
		return p
	}
	return "slirp"
}
