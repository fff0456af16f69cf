package disk_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestNodeAgentDiesBeforeSwap: the agent is killed when it has loaded the first mirror
// and not swapped it in. What that names can be taken down all the same: the move is
// aborted, or begun anew by the next agent.
func TestNodeAgentDiesBeforeSwap(t *testing.T) {
	for _, then := range []string{"abort", "start", "go on"} {
		t.Run(then, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 2*gib, 512*mib)
			b.fill(20 * mib)
			in := b.prepare("m-1", 512*mib)
			b.die("log-a", func() error {
				_, err := b.Evacuate(t.Context(), in, silent)
				return err
			})
			top := "ebb-" + string(b.disk)
			dev := func(part string) dm.Dev {
				i, err := b.dm.Info(top + part)
				require.NoError(t, err)
				return i.Dev
			}
			_, err := b.dm.Load(top, false, dm.Mirror(uint64(2*gib/512), dev("-g2-loga"), 8192, dev("-g1"), dev("-g2-gate")))
			require.NoError(t, err)
			b.restart()
			switch then {
			case "abort":
				_, err = b.AbortMove(t.Context(), in)
				require.NoError(t, err)
				require.Len(t, b.devices(), 5)
			case "start":
				b.nextAgent()
				require.Len(t, b.devices(), 5)
			}
			if then != "abort" {
				b.through(in)
			}
			b.check(contract.XFS)
		})
	}
}

// TestNodeSuspendedIsResumed: a device that is suspended is resumed first of all, also
// when its disk cannot be brought up; and one that cannot run with the table it has, as
// the kernel leaves a pool whose table it has refused, gets the right one.
func TestNodeSuspendedIsResumed(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	top := "ebb-" + string(b.disk)

	run(t, "dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", top)
	b.host.SetFault(b.vols[0], node.Fault{Kind: node.FaultErrorReads})
	b.restart()
	_, err := b.Reconcile(t.Context())
	require.NoError(t, err)
	b.host.SetFault(b.vols[0], node.Fault{})
	within(t, 10*time.Second, "a look at the devices", func() { require.Len(t, b.devices(), 5) })
	b.fill(10 * mib)

	pool := top + "-g1-pool"
	_, table, err := b.dm.Table(pool)
	require.NoError(t, err)
	table[0].Length /= 2
	run(t, "dmsetup", "reload", "--noudevsync", pool, "--table", table[0].String())
	out, err := exec.Command("dmsetup", "resume", "--noflush", "--nolockfs", "--noudevsync", pool).CombinedOutput()
	require.Error(t, err, "%s", out)
	is, err := b.dm.Info(pool)
	require.NoError(t, err)
	require.True(t, is.Suspended)
	b.nextAgent()
	require.Len(t, b.devices(), 5)
	b.fill(10 * mib)
	b.check(contract.XFS)
}

// TestNodeDeadAgentsCountsEnd: the kernel counts a disk's I/O for a move until its end.
// The next agent, which cannot use the count of a dead one, ends it.
func TestNodeDeadAgentsCountsEnd(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	in := b.prepare("m-1", 512*mib)
	for _, step := range []string{"proven", "copying"} {
		b.die(step, func() error {
			_, err := b.Evacuate(t.Context(), in, silent)
			return err
		})
		require.NotEmpty(t, b.counts())
		b.nextAgent()
		require.Empty(t, b.counts())
	}
	b.through(in)
	b.check(contract.XFS)
}

// counts are the kernel's counts of I/O on the disk's devices.
func (b *bench) counts() (lines string) {
	for _, name := range b.devices() {
		s, err := b.dm.Message(name, 0, "@stats_list ebb")
		require.NoError(b.t, err)
		lines += s
	}
	return lines
}
