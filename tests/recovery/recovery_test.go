package recovery

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

const (
	oldVolume = "vol-0000000a"
	newVolume = "vol-0000000b"
	gib       = int64(1) << 30
)

func TestInNode(t *testing.T) {
	n := nodetest.Boot(t, node.Options{MemoryMiB: 512})
	nodetest.Run(t, n, "^TestNode")
}

// page is the document, as blocks of shell by their info string.
type page struct {
	blocks []block
}

type block struct{ info, text string }

func read(t *testing.T) page {
	t.Helper()
	b, err := os.ReadFile("../../docs/recovery.md")
	require.NoError(t, err)
	var p page
	in := false
	for line := range strings.Lines(string(b)) {
		info, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && !in:
			p.blocks = append(p.blocks, block{info: info})
			in = true
		case fence:
			in = false
		case in:
			p.blocks[len(p.blocks)-1].text += line
		}
	}
	require.NotEmpty(t, p.blocks)
	return p
}

// with is the blocks with an info string whose text contains something.
func (p page) with(t *testing.T, info, contains string) string {
	t.Helper()
	for _, b := range p.blocks {
		if b.info == info && strings.Contains(b.text, contains) {
			return b.text
		}
	}
	t.Fatalf("docs/recovery.md has no block %q with %q", info, contains)
	return ""
}

// all is every block with an info string, in order.
func (p page) all(info string) []string {
	var out []string
	for _, b := range p.blocks {
		if b.info == info {
			out = append(out, b.text)
		}
	}
	return out
}

// shell runs the commands as an operator would, and fails with what they said.
func shell(t *testing.T, dir string, parts ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-euc", strings.Join(parts, "\n"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// bench is one disk in the node.
type bench struct {
	*disk.Manager
	t     *testing.T
	host  *nodetest.Cloud
	dm    *dm.Client
	disk  contract.DiskID
	mount string
	dir   string
	step  func(string)
}

func newBench(t *testing.T, fs contract.Filesystem) *bench {
	t.Helper()
	host := nodetest.Host(t)
	c, err := dm.Open()
	require.NoError(t, err)
	require.NoError(t, c.EnsureTargets(t.Context(), disk.Targets...))
	b := &bench{t: t, host: host, dm: c, disk: "d-0123456789abcdef0", dir: t.TempDir()}
	b.mount = filepath.Join(b.dir, "mnt")
	b.Manager, err = disk.NewManager(disk.Options{
		Node: "i-00000001", DM: c, Locator: volume.Auto(c), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		OnStep: func(step string) error {
			if b.step != nil {
				b.step(step)
			}
			return nil
		},
	})
	require.NoError(t, err)
	host.Attach(oldVolume, gib)
	_, err = b.Format(t.Context(), contract.FormatDiskInput{
		Disk: b.disk, Name: "shop/db", SizeBytes: 8 * gib, Volumes: []string{oldVolume}, Filesystem: fs, MountPath: b.mount,
	})
	require.NoError(t, err)
	b.write("before", 64<<20)
	t.Cleanup(func() {
		require.NoError(t, b.Disassemble(context.Background(), b.disk))
		require.NoError(t, c.Close())
		require.NoError(t, host.Detach(oldVolume))
		host.Delete(oldVolume)
	})
	return b
}

// write writes a file that can be checked by its name.
func (b *bench) write(name string, bytes int) {
	b.t.Helper()
	f, err := os.Create(filepath.Join(b.mount, name))
	require.NoError(b.t, err)
	_, err = f.WriteString(content(name, bytes))
	require.NoError(b.t, err)
	require.NoError(b.t, f.Sync())
	require.NoError(b.t, f.Close())
}

func content(name string, bytes int) string { return strings.Repeat(name+"\n", bytes/(len(name)+1)) }

func (b *bench) assemble() contract.Measurement {
	b.t.Helper()
	m, err := b.Assemble(b.t.Context(), contract.AssembleDiskInput{Disk: b.disk})
	require.NoError(b.t, err)
	return m
}

func (b *bench) requireFile(path string, bytes int) {
	b.t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(b.t, err)
	if string(got) != content(filepath.Base(path), bytes) { // too long to be shown
		b.t.Fatalf("%s is not what was written", path)
	}
}

// env sets the variables that the page says to set.
func (b *bench) env() string { return "V=" + node.VolumePath(oldVolume) }

func TestNodeBringUp(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t, fs)
			require.NoError(t, b.Disassemble(t.Context(), b.disk))
			p := read(t)
			steps := p.all("sh run")
			up, down := steps[:len(steps)-1], steps[len(steps)-1]
			require.Contains(t, down, "umount")

			// With a repair of metadata that need none, which must do no harm.
			var withRepair []string
			for _, s := range up {
				withRepair = append(withRepair, s)
				if strings.Contains(s, "thin_check /dev/mapper") {
					withRepair = append(withRepair, p.all("sh repair")...)
				}
			}
			out := shell(t, b.dir, append([]string{b.env()}, withRepair...)...)
			require.Contains(t, out, "disk "+string(b.disk)+", name shop/db, "+string(fs))
			require.Contains(t, out, "generation 1 born 1, role 2")
			require.Contains(t, out, "member 0: "+oldVolume)
			b.requireFile("/mnt/recovered/before", 64<<20)
			shell(t, b.dir, "DISK="+string(b.disk)+" NAME="+string(b.disk)+"-g1", down)
			list, err := b.dm.List()
			require.NoError(t, err)
			for _, d := range list {
				require.NotContains(t, d.Name, string(b.disk))
			}

			// The agent takes over what was brought up by hand.
			shell(t, b.dir, append([]string{b.env()}, up[:len(up)-1]...)...)
			m := b.assemble()
			require.Equal(t, uint64(1), m.Generation)
			b.requireFile(filepath.Join(b.mount, "before"), 64<<20)
		})
	}
}

// moving begins a move and leaves it in the middle, as a dead node would: the mirror
// has some of the copy left to do.
func (b *bench) moving() contract.MoveInput {
	b.t.Helper()
	b.host.Attach(newVolume, gib/2)
	b.t.Cleanup(func() {
		require.NoError(b.t, b.Disassemble(context.Background(), b.disk))
		require.NoError(b.t, b.host.Detach(newVolume))
		b.host.Delete(newVolume)
	})
	in := contract.MoveInput{Disk: b.disk, Move: "m-1"}
	_, err := b.PrepareMove(b.t.Context(), contract.PrepareMoveInput{
		Disk: b.disk, Move: in.Move, Generation: 2, Volumes: []string{newVolume},
	})
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(b.t.Context())
	b.step = func(step string) {
		switch step {
		case "proven":
			b.write("late", 48<<20)
			require.NoError(b.t, b.Throttle(ctx, contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, MiBs: 4}))
		case "copying":
			cancel()
		}
	}
	_, err = b.Evacuate(ctx, in, func(contract.CopyProgress) {})
	b.step = nil
	require.ErrorIs(b.t, err, context.Canceled)
	require.NoError(b.t, b.Disassemble(b.t.Context(), b.disk))
	return in
}

func TestNodeAbortMove(t *testing.T) {
	b := newBench(t, contract.XFS)
	in := b.moving()
	p := read(t)
	steps := p.all("sh run")
	out := shell(t, b.dir, append([]string{b.env()}, steps[:len(steps)-1]...)...)
	require.Contains(t, out, "move 'm-1' phase 2")
	b.requireFile("/mnt/recovered/before", 64<<20)
	hand := b.mount
	b.mount = "/mnt/recovered"
	b.write("by-hand", 8<<20)
	b.mount = hand
	shell(t, b.dir, "DISK="+string(b.disk)+" NAME="+string(b.disk)+"-g1", steps[len(steps)-1])
	shell(t, b.dir, "W="+node.VolumePath(newVolume), p.with(t, "sh", "seek=32"))

	m := b.assemble()
	require.Nil(t, m.Move, "the agent has forgotten the move")
	require.Equal(t, uint64(1), m.Generation)
	b.requireFile(filepath.Join(b.mount, "before"), 64<<20)
	b.requireFile(filepath.Join(b.mount, "by-hand"), 8<<20)
	_, err := b.Evacuate(t.Context(), in, func(contract.CopyProgress) {})
	_, refused := contract.AsRefusal(err)
	require.True(t, refused, "%v", err)
}

func TestNodeContinueMove(t *testing.T) {
	b := newBench(t, contract.Ext4)
	in := b.moving()
	p := read(t)
	run := p.all("sh run")
	helpers, table := run[0], p.with(t, "sh run", "table()")
	stack := func(volume, header string) string {
		build := p.with(t, "sh run", "0 $DATA thin-pool")
		before, _, ok := strings.Cut(build, "echo \"0 $SIZE linear") // up to the thin device
		require.True(t, ok)
		names := strings.ReplaceAll(table, "H=h\n", "H="+header+"\n")
		return strings.Join([]string{"V=" + node.VolumePath(volume), "header $V " + header, names, p.with(t, "sh run", "dmsetup create -u EBB-$NAME-meta"), before}, "\n")
	}
	out := shell(
		t, b.dir, helpers,
		stack(oldVolume, "o"), "OLD=ebb-$NAME",
		stack(newVolume, "n"), "NEW=ebb-$NAME W="+node.VolumePath(newVolume),
		p.with(t, "sh", "mirror disk"),
	)
	require.Contains(t, out, "mirror 2 ")
	require.Contains(t, out, " 1 AA ")

	m := b.assemble()
	require.NotNil(t, m.Move)
	require.Equal(t, in.Move, m.Move.Move)
	require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move}))
	_, err := b.Evacuate(t.Context(), in, func(contract.CopyProgress) {})
	require.NoError(t, err)
	_, err = b.VerifyMove(t.Context(), in, func(contract.CopyProgress) {})
	require.NoError(t, err)
	c, err := b.CommitMove(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, uint64(2), c.Generation)
	_, err = b.RetireBacking(t.Context(), in)
	require.NoError(t, err)
	b.requireFile(filepath.Join(b.mount, "before"), 64<<20)
}
