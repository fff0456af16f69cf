package node

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Kind returns the kind of node that KindEnv asks for, or the best that this machine can do: KindLoop
// when root may use device-mapper with the targets that matter, else KindUML.
func Kind() string {
	if k := os.Getenv(KindEnv); k != "" {
		return k
	}
	if Available(KindLoop) == nil {
		return KindLoop
	}
	return KindUML
}

// Available returns nil when this machine can run nodes of a kind, else ErrUnavailable with the reason.
func Available(kind string) error {
	missing := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, kind, fmt.Sprintf(format, args...))
	}
	switch kind {
	case KindUML:
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
