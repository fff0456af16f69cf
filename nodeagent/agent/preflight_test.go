package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// fakeTargets answers with versions; missing ones are explained by err.
type fakeTargets struct {
	have map[string]string
	err  error
}

func (f fakeTargets) Targets(context.Context, []string) (map[string]string, error) {
	return f.have, f.err
}

func allTargets() map[string]string {
	return map[string]string{"linear": "1.4.0", "thin-pool": "1.22.0", "thin": "1.22.0", "mirror": "1.14.0", "snapshot": "1.16.0"}
}

func gzipped(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(s))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

const goodConfig = "# a comment\nCONFIG_BLK_DEV_DM=y\nCONFIG_DM_THIN_PROVISIONING=m\nCONFIG_DM_MIRROR=m\nCONFIG_XFS_FS=y\nCONFIG_EXT4_FS=m\n"

func goodRoot(t *testing.T) fstest.MapFS {
	t.Helper()
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		"proc/sys/kernel/osrelease":    file("6.12.55\n"),
		"proc/config.gz":               {Data: gzipped(t, goodConfig)},
		"proc/filesystems":             file("nodev\tsysfs\n\txfs\nnodev\ttmpfs\n"),
		"proc/self/status":             file("Name:\tebb-agent\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n"),
		"sys/kernel/security/lockdown": file("none [integrity] confidentiality\n"),
		"etc/os-release":               file("NAME=\"Amazon Linux\"\nPRETTY_NAME=\"Amazon Linux 2023.9\"\n"),
	}
}

func goodProber(t *testing.T) *Prober {
	t.Helper()
	return &Prober{
		Root:        goodRoot(t),
		OpenControl: func() error { return nil },
		Targets:     fakeTargets{have: allTargets()},
		LookPath:    func(s string) (string, error) { return "/usr/sbin/" + s, nil },
		Getenv:      func(string) string { return "" },
		Identity:    FixedIdentity(testNode),
		Temporal:    func(context.Context) error { return nil },
	}
}

func find(t *testing.T, r Report, name string) contract.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	require.Failf(t, "no such check", "%s in %v", name, r.Checks)
	return contract.Check{}
}

func TestPreflightPasses(t *testing.T) {
	r := goodProber(t).Probe(context.Background())
	require.True(t, r.OK, "%v", r.Checks)
	require.Nil(t, r.Refusal())
	require.Equal(t, testNode, r.Node)
	require.Equal(t, "6.12.55", r.Kernel)
	require.Contains(t, find(t, r, "kernel-config").Detail, "DM_MIRROR=m")
	require.Contains(t, find(t, r, "lockdown").Detail, "integrity")
	require.Contains(t, find(t, r, "filesystem ext4").Detail, "module")
	require.Contains(t, find(t, r, "target thin").Detail, "1.22.0")
}

func TestPreflightRefuses(t *testing.T) {
	without := func(names ...string) map[string]string {
		m := maps.Clone(allTargets())
		for _, n := range names {
			delete(m, n)
		}
		return m
	}
	set := func(p *Prober, file, content string) {
		p.Root.(fstest.MapFS)[file] = &fstest.MapFile{Data: []byte(content)}
	}
	for _, c := range []struct {
		name   string
		change func(*Prober)
		check  string
		detail string // part of it
		next   string // part of it
	}{
		{"auto mode", func(p *Prober) {
			set(p, "proc/1/root/etc/os-release", "PRETTY_NAME=\"Bottlerocket (EKS Auto, Standard) 2025.12.5 (aws-k8s-1.34-standard)\"\n")
		}, "platform", "EKS Auto Mode", "managed node groups"},
		{"fargate", func(p *Prober) {
			p.Getenv = func(s string) string { return map[string]string{"NODE_NAME": "fargate-ip-10-0-0-1.ec2.internal"}[s] }
		}, "platform", "Fargate", "managed node groups"},
		{"no identity", func(p *Prober) {
			p.Identity = func(context.Context) (string, error) { return "", errors.New("no route to host") }
		}, "identity", "no route", "IMDSv2"},
		{"bad identity", func(p *Prober) { p.Identity = FixedIdentity("my-laptop") }, "identity", "my-laptop", "--node"},
		{"no control device", func(p *Prober) {
			p.OpenControl = func() error { return errors.New("no such file or directory") }
		}, "device-mapper", "no such file", "modprobe dm-mod"},
		{"no list", func(p *Prober) { p.Targets = fakeTargets{err: errors.New("ioctl: permission denied")} }, "targets", "permission denied", "device-mapper"},
		{"mirror not loaded", func(p *Prober) {
			p.Targets = fakeTargets{without("mirror"), errors.New("modprobe: key rejected")}
		}, "target mirror", "key rejected", "settings.kernel.modules.dm-mirror.autoload"},
		{"no thin at all", func(p *Prober) {
			set(p, "proc/config.gz", string(gzipped(t, "CONFIG_BLK_DEV_DM=y\n")))
			p.Targets = fakeTargets{have: without("thin", "thin-pool")}
		}, "target thin", "does not offer", "CONFIG_DM_THIN_PROVISIONING"},
		{"built in but absent", func(p *Prober) { p.Targets = fakeTargets{have: without("linear")} }, "target linear", "built in", "log"},
		{"no filesystem", func(p *Prober) {
			delete(p.Root.(fstest.MapFS), "proc/config.gz")
			set(p, "proc/filesystems", "\tbtrfs\n")
		}, "filesystems", "neither", "xfs or ext4"},
		{"not root", func(p *Prober) { set(p, "proc/self/status", "CapEff:\t0000000000000000\n") }, "CAP_SYS_ADMIN", "not held", "privileged"},
		{"no status", func(p *Prober) { delete(p.Root.(fstest.MapFS), "proc/self/status") }, "CAP_SYS_ADMIN", "cannot be read", "root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := goodProber(t)
			c.change(p)
			r := p.Probe(context.Background())
			require.False(t, r.OK)
			got := find(t, r, c.check)
			require.False(t, got.OK)
			require.Contains(t, got.Detail, c.detail)
			require.Contains(t, got.Next, c.next)
			ref := r.Refusal()
			require.NotNil(t, ref)
			require.Equal(t, contract.NodeUnsupported, ref.Code)
			require.Contains(t, ref.Error(), c.detail)
			require.Contains(t, ref.Next, c.next)
		})
	}
}

func TestPreflightTellsButGoesOn(t *testing.T) {
	p := goodProber(t)
	p.Temporal = func(context.Context) error { return errors.New("connection refused") }
	p.LookPath = func(name string) (string, error) {
		if strings.HasPrefix(name, "thin_") { // without them no disk comes up or moves
			return "/usr/sbin/" + name, nil
		}
		return "", errors.New("not found")
	}
	p.DroppedCredentials = []string{"AWS_ACCESS_KEY_ID"}
	delete(p.Root.(fstest.MapFS), "sys/kernel/security/lockdown")
	r := p.Probe(context.Background())
	require.False(t, r.OK)
	require.Nil(t, r.Refusal(), "an agent without Temporal or mkfs brings its disks up")
	require.Contains(t, find(t, r, "temporal").Next, "TEMPORAL_ADDRESS")
	require.False(t, find(t, r, "tools").OK)
	require.Contains(t, find(t, r, "credentials").Detail, "AWS_ACCESS_KEY_ID")
}

func TestPreflightReadsABrokenNode(t *testing.T) {
	p := goodProber(t)
	p.Root = fstest.MapFS{"proc/config.gz": {Data: []byte("not gzip")}}
	r := p.Probe(context.Background())
	require.False(t, r.OK)
	require.Contains(t, find(t, r, "kernel-config").Detail, "not readable")

	// Distributions keep the configuration in /boot instead.
	root := goodRoot(t)
	delete(root, "proc/config.gz")
	root["boot/config-6.12.55"] = &fstest.MapFile{Data: []byte(goodConfig)}
	p.Root = root
	require.Contains(t, find(t, p.Probe(context.Background()), "kernel-config").Detail, "DM_MIRROR=m")
}
