package agent

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TargetProber finds out which device-mapper targets the kernel offers.
type TargetProber interface {
	// Targets returns the versions of those of names that are usable, by name,
	// and an error that says why others are not; a nil map says that the kernel
	// could not be asked. It may load a target's module; it changes nothing else.
	Targets(ctx context.Context, names []string) (map[string]string, error)
}

// Prober asks a node what it offers. Nothing is concluded from the name of an
// image or a distribution, except that Ebb's agent is refused where the
// platform forbids it. Probing changes nothing and is safe to repeat.
type Prober struct {
	// Root is the node's file tree as the agent sees it; proc and sys are read.
	Root fs.FS
	// OpenControl opens and closes /dev/mapper/control for writing.
	OpenControl func() error
	Targets     TargetProber
	// LookPath finds an external program.
	LookPath func(string) (string, error)
	Getenv   func(string) string
	Identity Identity
	// Temporal reaches the Temporal service; nil leaves that check out.
	Temporal func(context.Context) error
	// DroppedCredentials are what DropCredentials returned.
	DroppedCredentials []string
}

// requiredTargets and the configuration symbol and module each comes from.
var requiredTargets = []struct{ name, symbol, module string }{
	{"linear", "CONFIG_BLK_DEV_DM", "dm-mod"},
	{"thin-pool", "CONFIG_DM_THIN_PROVISIONING", "dm-thin-pool"},
	{"thin", "CONFIG_DM_THIN_PROVISIONING", "dm-thin-pool"},
	{"mirror", "CONFIG_DM_MIRROR", "dm-mirror"},
}

// probeTimeout bounds each check that asks something outside the kernel.
const probeTimeout = 5 * time.Second

// moduleTimeout bounds the check of targets, which may load modules.
const moduleTimeout = 30 * time.Second

// capSysAdmin is the bit of CAP_SYS_ADMIN in a capability mask.
const capSysAdmin = 21

// Report is the outcome of a preflight.
type Report struct {
	contract.PreflightResult
	// Blocking are the checks that failed and without which the agent cannot
	// run at all. Temporal being away is not one: disks come up without it.
	Blocking []contract.Check
}

// Refusal is nil, or says why the agent cannot run on this node.
func (r Report) Refusal() *contract.Refusal {
	if len(r.Blocking) == 0 {
		return nil
	}
	var why, next []string
	for _, c := range r.Blocking {
		why = append(why, c.Name+": "+c.Detail)
		if c.Next != "" {
			next = append(next, c.Next)
		}
	}
	return contract.Refuse(contract.NodeUnsupported, "%s", strings.Join(why, "; ")).WithNext("%s", strings.Join(next, "; "))
}

// report collects checks.
type report struct{ Report }

func (r *report) ok(name, format string, args ...any) {
	r.Checks = append(r.Checks, contract.Check{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)})
}

func (r *report) fail(blocking bool, name, next, format string, args ...any) {
	c := contract.Check{Name: name, Detail: fmt.Sprintf(format, args...), Next: next}
	r.Checks = append(r.Checks, c)
	if blocking {
		r.Blocking = append(r.Blocking, c)
	}
}

// Probe runs every check, in the order a person would ask.
func (p *Prober) Probe(ctx context.Context) Report {
	var r report
	r.Kernel = p.line("proc/sys/kernel/osrelease")
	p.platform(&r)
	p.identity(ctx, &r)
	config := p.kernelConfig(r.Kernel)
	p.config(&r, config)
	if p.control(&r, config) {
		p.targets(ctx, &r, config)
	}
	p.filesystems(&r, config)
	p.lockdown(&r)
	p.capability(&r)
	p.tools(&r)
	p.credentials(&r)
	p.temporal(ctx, &r)
	r.OK = true
	for _, c := range r.Checks {
		r.OK = r.OK && c.OK
	}
	return r.Report
}

// platform refuses where the platform forbids what the agent does, before the
// other checks fail in less telling ways.
func (p *Prober) platform(r *report) {
	const name = "platform"
	const next = "run Ebb on self-managed nodes or managed node groups (Amazon Linux 2023, Bottlerocket, Ubuntu)"
	fargate := strings.Contains(p.Getenv("AWS_EXECUTION_ENV"), "FARGATE")
	for _, v := range []string{"NODE_NAME", "EBB_NODE_NAME"} {
		fargate = fargate || strings.HasPrefix(p.Getenv(v), "fargate-")
	}
	if fargate {
		r.fail(true, name, next, "AWS Fargate: no block devices and no privileged containers")
		return
	}
	// The host's file first: inside a container the second one is the image's.
	for _, file := range []string{"proc/1/root/etc/os-release", "etc/os-release"} {
		pretty := osRelease(p.read(file), "PRETTY_NAME")
		if strings.Contains(pretty, "EKS Auto") {
			r.fail(true, name, next, "%s: EKS Auto Mode manages its nodes and their volumes itself", pretty)
			return
		}
		if pretty != "" {
			r.ok(name, "%s", pretty)
			return
		}
	}
	r.ok(name, "unknown system")
}

func (p *Prober) identity(ctx context.Context, r *report) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	node, err := p.Identity(ctx)
	if err != nil {
		r.fail(true, "identity", "allow the instance metadata service (IMDSv2; hop limit 2 in containers), or name the instance by --node or EBB_NODE", "%v", err)
		return
	}
	r.Node = node
	r.ok("identity", "%s", node)
}

func (p *Prober) config(r *report, config map[string]string) {
	if config == nil {
		r.ok("kernel-config", "not readable; the kernel itself is asked instead")
		return
	}
	var said []string
	for _, s := range []string{"CONFIG_BLK_DEV_DM", "CONFIG_DM_THIN_PROVISIONING", "CONFIG_DM_MIRROR", "CONFIG_XFS_FS", "CONFIG_EXT4_FS"} {
		v := config[s]
		if v == "" {
			v = "n"
		}
		said = append(said, strings.TrimPrefix(s, "CONFIG_")+"="+v)
	}
	r.ok("kernel-config", "%s", strings.Join(said, " "))
}

func (p *Prober) control(r *report, config map[string]string) bool {
	const name = "device-mapper"
	if err := p.OpenControl(); err != nil {
		next := "load dm-mod (modprobe dm-mod) and give the agent the host's /dev and root"
		if config != nil && config["CONFIG_BLK_DEV_DM"] == "" {
			next = "use a kernel with device-mapper; every Amazon Linux 2023, Bottlerocket and Ubuntu kernel has it"
		}
		r.fail(true, name, next, "/dev/mapper/control: %v", err)
		return false
	}
	r.ok(name, "/dev/mapper/control can be used")
	return true
}

func (p *Prober) targets(ctx context.Context, r *report, config map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
	defer cancel()
	names := make([]string, 0, len(requiredTargets))
	for _, t := range requiredTargets {
		names = append(names, t.name)
	}
	have, err := p.Targets.Targets(ctx, names)
	if have == nil {
		r.fail(true, "targets", "see the check device-mapper", "the kernel's list of targets: %v", err)
		return
	}
	why := ""
	if err != nil {
		why = ": " + err.Error()
	}
	for _, t := range requiredTargets {
		check := "target " + t.name
		if v, ok := have[t.name]; ok {
			r.ok(check, "%s", strings.TrimSpace("available "+v))
			continue
		}
		switch config[t.symbol] {
		case "m":
			r.fail(true, check, fmt.Sprintf("modprobe %s on the host (Bottlerocket: settings.kernel.modules.%s.autoload = true), or mount the host's /lib/modules into the agent's container", t.module, t.module),
				"the kernel has it as module %s, which is not loaded and could not be%s", t.module, why)
		case "y":
			r.fail(true, check, "see the kernel's log", "built in (%s=y) but not offered%s", t.symbol, why)
		default:
			r.fail(true, check, fmt.Sprintf("use a kernel with %s; every Amazon Linux 2023, Bottlerocket and Ubuntu kernel has it", t.symbol), "the kernel does not offer it%s", why)
		}
	}
	const wished = "delay" // see disk.Manager's pre-copy
	have, _ = p.Targets.Targets(ctx, []string{wished})
	if v, ok := have[wished]; ok {
		r.ok("target "+wished, "%s", strings.TrimSpace("available "+v))
	} else {
		r.ok("target "+wished, "not available, and not required: applications notice more of a move (module dm-delay, CONFIG_DM_DELAY)")
	}
}

func (p *Prober) filesystems(r *report, config map[string]string) {
	have := map[string]bool{}
	for line := range strings.Lines(string(p.read("proc/filesystems"))) {
		f := strings.Fields(line)
		if len(f) > 0 {
			have[f[len(f)-1]] = true
		}
	}
	usable := false
	for _, f := range []struct {
		fs     contract.Filesystem
		symbol string
	}{{contract.XFS, "CONFIG_XFS_FS"}, {contract.Ext4, "CONFIG_EXT4_FS"}} {
		name := "filesystem " + string(f.fs)
		switch {
		case have[string(f.fs)]:
			usable = true
			r.ok(name, "available")
		case config[f.symbol] == "m", config[f.symbol] == "y":
			usable = true
			r.ok(name, "a module, loaded at the first mount")
		default:
			r.ok(name, "not offered: disks with %s cannot be mounted here", f.fs)
		}
	}
	if !usable {
		r.fail(true, "filesystems", "use a kernel with xfs or ext4", "the kernel offers neither xfs nor ext4")
	}
}

func (p *Prober) lockdown(r *report) {
	const name = "lockdown"
	line := p.line("sys/kernel/security/lockdown")
	_, rest, ok := strings.Cut(line, "[")
	mode, _, _ := strings.Cut(rest, "]")
	switch {
	case !ok:
		r.ok(name, "not in this kernel, or securityfs is not mounted")
	case mode == "none":
		r.ok(name, "none")
	default:
		r.ok(name, "%s: only signed modules load; Ebb uses the kernel's own", mode)
	}
}

func (p *Prober) capability(r *report) {
	const name = "CAP_SYS_ADMIN"
	const next = "run the agent as root; in a container, privileged (Bottlerocket: with seLinuxOptions.type super_t)"
	for line := range strings.Lines(string(p.read("proc/self/status"))) {
		v, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		if err == nil && mask>>capSysAdmin&1 == 1 {
			r.ok(name, "held")
			return
		}
		r.fail(true, name, next, "not held (effective capabilities %s)", strings.TrimSpace(v))
		return
	}
	r.fail(true, name, next, "cannot be read from /proc/self/status")
}

// tools looks for the external programs. An existing disk needs thin_check to
// come up and thin_restore to move; mkfs is for new disks.
func (p *Prober) tools(r *report) {
	mkfs := 0
	for _, t := range []struct{ name, missing string }{
		{"mkfs.xfs", "no disk with xfs can be created here"},
		{"mkfs.ext4", "no disk with ext4 can be created here"},
	} {
		path, err := p.LookPath(t.name)
		switch {
		case err != nil:
			r.ok("tool "+t.name, "not found: %s", t.missing)
		default:
			r.ok("tool "+t.name, "%s", path)
			if strings.HasPrefix(t.name, "mkfs.") {
				mkfs++
			}
		}
	}
	for _, t := range []struct{ name, missing string }{
		{"thin_check", "pool metadata cannot be checked before a disk is brought up"},
		{"thin_restore", "no disk can be moved"},
	} {
		if path, err := p.LookPath(t.name); err != nil {
			r.fail(true, "tool "+t.name, "install thin-provisioning-tools", "not found: %s", t.missing)
		} else {
			r.ok("tool "+t.name, "%s", path)
		}
	}
	if mkfs == 0 {
		r.fail(false, "tools", "install xfsprogs or e2fsprogs", "neither mkfs.xfs nor mkfs.ext4 is there: existing disks work, none can be created")
	}
}

func (p *Prober) credentials(r *report) {
	const name = "credentials"
	if len(p.DroppedCredentials) > 0 {
		r.ok(name, "found and not used: %s; the node agent needs none, do not give it any", strings.Join(p.DroppedCredentials, ", "))
		return
	}
	r.ok(name, "none in the environment, as it should be")
}

func (p *Prober) temporal(ctx context.Context, r *report) {
	const name = "temporal"
	if p.Temporal == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := p.Temporal(ctx); err != nil {
		r.fail(false, name, "check TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the TLS settings; disks work meanwhile but cannot grow", "%v", err)
		return
	}
	r.ok(name, "reachable")
}

// kernelConfig is the kernel's configuration by symbol; nil when not readable.
func (p *Prober) kernelConfig(release string) map[string]string {
	raw := p.read("proc/config.gz")
	if raw != nil {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil
		}
		if raw, err = io.ReadAll(io.LimitReader(z, 4<<20)); err != nil {
			return nil
		}
	} else if release != "" && !strings.Contains(release, "/") {
		raw = p.read("boot/config-" + release)
	}
	if raw == nil {
		return nil
	}
	out := make(map[string]string)
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok && strings.HasPrefix(k, "CONFIG_") {
			out[k] = v
		}
	}
	return out
}

// read is a small file of the node, nil when it cannot be read.
func (p *Prober) read(name string) []byte {
	f, err := p.Root.Open(name)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil
	}
	return b
}

func (p *Prober) line(name string) string {
	s, _, _ := strings.Cut(string(p.read(name)), "\n")
	return strings.TrimSpace(s)
}

// osRelease is the value of a key of an os-release file.
func osRelease(file []byte, key string) string {
	for line := range strings.Lines(string(file)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}
