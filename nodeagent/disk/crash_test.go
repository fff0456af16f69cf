package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

// moveSteps are the boundaries of a move, in their order.
var moveSteps = []string{
	"prepared", "precopy", "pass", "proven", "log-a", "swap-a", "log-b", "swap-b", "copying-new", "copying", // PrepareMove, Evacuate
	"committing", "committed", "swapped", // CommitMove
}

var errDead = errors.New("the agent is dead")

// finish brings a move to its end from wherever it is, as the workflow would.
func (b *bench) finish(in contract.MoveInput, volume string) contract.EvacuateResult {
	m, err := b.Measure(b.t.Context(), b.disk)
	require.NoError(b.t, err)
	if m.Move == nil {
		_, err = b.PrepareMove(b.t.Context(), contract.PrepareMoveInput{Disk: b.disk, Move: in.Move, Generation: m.Generation + 1, Volumes: []string{volume}})
		require.NoError(b.t, err)
	}
	ev, err := b.Evacuate(b.t.Context(), in, silent)
	require.NoError(b.t, err)
	_, err = b.VerifyMove(b.t.Context(), in, silent)
	require.NoError(b.t, err)
	_, err = b.CommitMove(b.t.Context(), in)
	require.NoError(b.t, err)
	_, err = b.RetireBacking(b.t.Context(), in)
	require.NoError(b.t, err)
	return ev
}

// dieAt runs a move until the agent dies at a step.
func (b *bench) dieAt(step string, in contract.MoveInput, volume string) {
	b.die(step, func() error {
		_, err := b.PrepareMove(b.t.Context(), contract.PrepareMoveInput{Disk: b.disk, Move: in.Move, Generation: b.generation() + 1, Volumes: []string{volume}})
		if err == nil {
			_, err = b.Evacuate(b.t.Context(), in, silent)
		}
		if err == nil {
			_, err = b.CommitMove(b.t.Context(), in)
		}
		return err
	})
}

func (b *bench) generation() uint64 {
	m, err := b.Measure(b.t.Context(), b.disk)
	require.NoError(b.t, err)
	return m.Generation
}

// TestNodeAgentDies: the agent dies at every step of a move, under a writer. The
// next agent finishes the move, or aborts it; nothing is lost, nothing fails.
func TestNodeAgentDies(t *testing.T) {
	for _, then := range []string{"finish", "abort"} {
		t.Run(then, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 8*gib, 4*gib)
			b.fill(40 * mib)
			stop := b.writer(100 * time.Millisecond)
			for _, step := range moveSteps {
				if then == "abort" && os.Getenv("EBB_TEST_FULL") == "" && !slices.Contains([]string{"pass", "swap-a", "copying", "committing", "committed"}, step) {
					continue
				}
				t.Log(step)
				in := contract.MoveInput{Disk: b.disk, Move: "m-" + step}
				vol := b.volume(4 * gib)
				b.dieAt(step, in, vol)
				b.nextAgent()
				b.devices() // none suspended
				committed := slices.Contains([]string{"committed", "swapped"}, step)
				if then == "abort" && !committed {
					gen := b.generation()
					m, err := b.AbortMove(t.Context(), in)
					require.NoError(t, err)
					require.Nil(t, m.Move)
					require.Len(t, b.devices(), 5)
					if step == "committing" {
						require.GreaterOrEqual(t, m.Generation, gen)
					} else {
						require.Equal(t, gen, m.Generation)
					}
					_, err = b.AbortMove(t.Context(), in) // harmless again
					require.NoError(t, err)
					b.drop(vol)
					continue
				}
				if then == "abort" {
					_, err := b.AbortMove(t.Context(), in)
					r, ok := contract.AsRefusal(err)
					require.True(t, ok, "%v", err)
					require.Equal(t, contract.MoveFailed, r.Code, "a committed move is not aborted")
				}
				b.finish(in, vol)
				require.Len(t, b.devices(), 5)
				b.drop(b.vols[0])
			}
			require.Positive(t, stop().Acked)
			b.check(contract.XFS)
		})
	}
}

// crashState is what survives a power cut, on the host.
type crashState struct {
	volume string
	in     contract.MoveInput
}

// TestPowerCut cuts the node's power at every step boundary of a move, boots it
// again and lets the next agent finish. I6, and I4/I5 around the commit.
func TestPowerCut(t *testing.T) {
	steps := moveSteps
	if os.Getenv("EBB_TEST_FULL") == "" {
		steps = []string{"half", "swap-a", "copying", "half-mirrored", "committed"}
	} else {
		steps = append([]string{"half", "half-mirrored"}, steps...)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			n := nodetest.Boot(t, node.Options{MemoryMiB: 512})
			fs := contract.XFS
			if len(step)%2 == 0 {
				fs = contract.Ext4
			}
			env := []string{"EBB_TEST_SHARED=" + n.Dir(), "EBB_TEST_STEP=" + step, "EBB_TEST_FS=" + string(fs)}
			marker := filepath.Join(n.Dir(), "marker")
			nodetest.AttachVolume(t, n, "vol-0000000a", 2*gib)
			nodetest.AttachVolume(t, n, "vol-0000000b", gib)
			binary := testBinary(t, n)
			p, err := n.Start(t.Context(), node.Command{
				Path: binary, Args: []string{"-test.run=^TestCrashBefore$", "-test.v"}, Env: append(env, node.InsideEnv+"=1"), Stdout: t.Output(), Stderr: t.Output(),
			})
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				select {
				case <-p.Done():
					return true
				default:
				}
				_, err := os.Stat(marker)
				return err == nil
			}, 2*time.Minute, 20*time.Millisecond)
			_, err = os.Stat(marker)
			require.NoError(t, err, "the run before the power cut failed")
			require.NoError(t, n.PowerCut())
			require.NoError(t, n.Boot(t.Context()))
			code, err := n.Exec(t.Context(), node.Command{
				Path: binary, Args: []string{"-test.run=^TestCrashAfter$", "-test.v", "-test.timeout=3m"}, Env: append(env, node.InsideEnv+"=1"), Stdout: t.Output(), Stderr: t.Output(),
			})
			require.NoError(t, err)
			require.Zero(t, code, "the run after the power cut failed")
		})
	}
}

// testBinary copies this test program to where the node sees it.
func testBinary(t *testing.T, n node.Node) string {
	path, err := os.Executable()
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	to := filepath.Join(n.Dir(), "disk.test")
	require.NoError(t, os.WriteFile(to, b, 0o755))
	return to
}

func crashBench(t *testing.T) (*bench, crashState, string) {
	shared := os.Getenv("EBB_TEST_SHARED")
	if shared == "" || os.Getenv("EBB_TEST_STEP") == "" {
		t.Skip("a half of TestPowerCut")
	}
	b := &bench{t: t, dm: openDM(t), disk: "d-00000000000000001", mount: "/tmp/crash", journal: filepath.Join(shared, "journal")}
	b.restart()
	return b, crashState{"vol-0000000b", contract.MoveInput{Disk: b.disk, Move: "m-crash"}}, os.Getenv("EBB_TEST_STEP")
}

// TestCrashBefore runs in a node until its power is cut.
func TestCrashBefore(t *testing.T) {
	b, s, step := crashBench(t)
	_, err := b.Format(t.Context(), contract.FormatDiskInput{
		Disk: b.disk, SizeBytes: 8 * gib, Volumes: []string{"vol-0000000a"}, Filesystem: contract.Filesystem(os.Getenv("EBB_TEST_FS")), MountPath: b.mount,
	})
	require.NoError(t, err)
	b.fill(120 * mib)
	b.writer(2 * time.Millisecond)
	if step == "half-mirrored" { // half of the mirror's copy, not of what comes before
		b.WithoutPrecopy()
	}
	cut := func(string) error {
		// Some writes more, so that the writer is in the middle of it.
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("EBB_TEST_SHARED"), "marker"), nil, 0o644))
		select {}
	}
	b.step = func(at string) error {
		if at == step {
			return cut(at)
		}
		return nil
	}
	_, err = b.PrepareMove(t.Context(), contract.PrepareMoveInput{Disk: b.disk, Move: s.in.Move, Generation: 2, Volumes: []string{s.volume}, ThrottleMiBs: 40})
	require.NoError(t, err)
	_, err = b.Evacuate(t.Context(), s.in, func(p contract.CopyProgress) {
		if strings.HasPrefix(step, "half") && p.DoneBytes > p.TotalBytes/3 && p.DoneBytes < p.TotalBytes {
			_ = cut(step)
		}
	})
	require.NoError(t, err)
	_, err = b.CommitMove(t.Context(), s.in)
	require.NoError(t, err)
}

// TestCrashAfter runs in the node after it has booted again.
func TestCrashAfter(t *testing.T) {
	b, s, step := crashBench(t)
	up, err := b.Reconcile(t.Context())
	require.NoError(t, err)
	require.Equal(t, []contract.DiskID{b.disk}, up)
	r, err := acked.Check(b.mount, b.journal)
	require.NoError(t, err)
	require.True(t, r.OK(), "right after the boot: %+v", r)
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	resumed := m.Move != nil && m.Move.Phase != contract.PhasePrepare
	t.Logf("%d acknowledged writes are there; generation %d, move %+v", r.Acked, m.Generation, m.Move)
	switch step {
	case "half-mirrored", "copying":
		require.True(t, resumed, "the move did not survive")
		require.NotEqual(t, contract.PhaseCommit, m.Move.Phase)
		if step == "half-mirrored" {
			require.Positive(t, m.Move.InSync)
		}
	case "committed", "swapped":
		require.EqualValues(t, 2, m.Generation)
	}
	stop := b.writer(20 * time.Millisecond) // a slow machine's move must not outlast the new backing's room
	ev := b.finish(s.in, s.volume)
	stop()
	if step == "half" { // what was there was compared, not copied again
		require.Greater(t, ev.ResumedFraction, 0.2)
	}
	require.EqualValues(t, 2, b.generation())
	b.check(contract.Filesystem(os.Getenv("EBB_TEST_FS")))
	require.Len(t, b.devices(), 5)
}

// dropCaches makes the next reads come from the volumes.
func dropCaches(t *testing.T) {
	unix.Sync()
	require.NoError(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o644))
}

// TestNodeNewVolumeFailsBeforeSwap: a commit ends before its swap, the headers are read
// again, and then the new volume fails, whose header is the active one by now. The disk
// goes on on the old one.
func TestNodeNewVolumeFailsBeforeSwap(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	b.die("committed", func() error {
		_, err := b.CommitMove(t.Context(), in)
		return err
	})
	require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move}))
	_, stopWatch := b.watch()
	defer stopWatch()
	stop := b.writer(0)
	b.host.SetFault(b.vols[1], node.Fault{Kind: node.FaultErrorWrites})
	require.Eventually(t, func() bool {
		_, table, err := b.dm.Table("ebb-" + string(b.disk))
		require.NoError(t, err)
		return table[0].Type == "linear"
	}, 30*time.Second, 20*time.Millisecond, "the mirror holds the disk's writes")
	stop()
	require.EqualValues(t, 3, b.generation(), "above both")
	b.fill(10 * mib)
	b.host.SetFault(b.vols[1], node.Fault{})
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	b.nextAgent()
	require.EqualValues(t, 3, b.generation(), "above both")
	b.check(contract.XFS)
}

// TestNodeCancelledWhileBeginning: the operation is cancelled between the last
// steps of a move's begin. Either the mirror runs and both headers say so, or
// the disk is on its old volume and its header has forgotten the move: never the
// disk alone with a log that would be believed later.
func TestNodeCancelledWhileBeginning(t *testing.T) {
	for _, step := range []string{"copying-new", "copying"} {
		t.Run(step, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 8*gib, gib)
			b.fill(10 * mib)
			in := b.prepare("m-1", gib)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b.step = func(s string) error {
				if s == step {
					cancel()
				}
				return nil
			}
			_, err := b.Evacuate(ctx, in, silent)
			require.ErrorIs(t, err, context.Canceled)
			b.step = nil
			b.fill(30 * mib) // a stale log would miss this
			b.through(in)
			b.check(contract.XFS)
		})
	}
}
