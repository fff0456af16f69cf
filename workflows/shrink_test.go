package workflows_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

var shrinkIn = contract.ShrinkInput{Disk: disk}

func TestShrink(t *testing.T) {
	w := made(t)
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.EqualValues(t, 20, r.BeforeGiB)
	require.EqualValues(t, 6, r.AfterGiB)
	require.EqualValues(t, 2, r.Generation)
	require.Equal(t, []string{"vol-00000001"}, r.Retired)
	require.Equal(t, []string{"vol-00000002"}, r.Volumes)
	require.Equal(t, []float64{1, 2, 3}, r.SwapPausesMS)
	require.Equal(t, 4*contract.GiB, r.CopiedBytes)
	require.Equal(t, 4*contract.GiB, r.VerifiedBytes)
	require.Equal(t, "snap-vol-00000001", r.Snapshot)
	w.intact(nodeA)
	require.Equal(t, []string{
		"DescribeDisk", "TrimDisk", "DescribeNode", "WaitForBackups", "SnapshotDisk", "CreateVolume", "AttachVolume", "PrepareMove",
		"EvacuateDisk", "VerifyMove", "CommitMove", "TagVolume", "RetireBacking", "TagVolume", "DetachVolume",
	}, w.calls[:15])
}

func TestShrinkDryRunChangesNothing(t *testing.T) {
	w := made(t)
	in := shrinkIn
	in.DryRun = true
	r := w.run(contract.ShrinkWorkflow, in)
	require.Equal(t, contract.Planned, r.Outcome)
	require.Contains(t, strings.Join(r.Steps, "\n"), "create a volume of 6 GiB")
	require.Equal(t, []string{"DescribeDisk", "MeasureDisk", "DescribeNode"}, w.calls)
}

// Two volumes are one after a shrink, also when they are no larger than what is
// needed: the way out of a header that can list no more.
func TestShrinkFoldsToTheSameSize(t *testing.T) {
	w := made(t)
	w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "four in a day").WithNext("wait")
	r := w.run(contract.GrowWorkflow, contract.GrowInput{Disk: disk, ToGiB: 25})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Len(t, r.Volumes, 2)
	w.newEnv()
	r = w.run(contract.ShrinkWorkflow, contract.ShrinkInput{Disk: disk, ToGiB: r.AfterGiB})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Equal(t, r.BeforeGiB, r.AfterGiB)
	require.Len(t, r.Volumes, 1)
	w.intact(nodeA)
}

func TestShrinkRefusals(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   contract.ShrinkInput
		prep func(*world)
		code contract.RefusalCode
	}{
		{name: "bad id", in: contract.ShrinkInput{Disk: "x"}, code: contract.BadInput},
		{name: "bad settings", in: contract.ShrinkInput{Disk: disk, Settings: contract.Settings{UtilizationPercent: 99}}, code: contract.BadInput},
		{name: "below used", in: contract.ShrinkInput{Disk: disk, ToGiB: 3}, code: contract.BelowUsed},
		{name: "below the headroom", in: contract.ShrinkInput{Disk: disk, ToGiB: 7, HeadroomBytes: 4 * contract.GiB}, code: contract.BelowUsed},
		{name: "below the headroom of a share", in: contract.ShrinkInput{Disk: disk, ToGiB: 7, HeadroomPercent: 1}, code: contract.BelowUsed},
		{name: "bad headroom", in: contract.ShrinkInput{Disk: disk, HeadroomBytes: -1}, code: contract.BadInput},
		{name: "no room", in: contract.ShrinkInput{Disk: disk, ToGiB: 20}, code: contract.NoRoomToShrink},
		{name: "full slots", in: shrinkIn, prep: func(w *world) { w.instances[nodeA].FreeSlots = 0 }, code: contract.AttachSlotsFull},
		{name: "unknown disk", in: shrinkIn, prep: func(w *world) { clear(w.vols) }, code: contract.DiskUnknown},
		{name: "attached nowhere", in: shrinkIn, prep: func(w *world) { w.vols["vol-00000001"].Node = "" }, code: contract.NodeUnknown},
		{name: "performance", in: contract.ShrinkInput{Disk: disk, ToGiB: 6, Volume: contract.VolumeSpec{Type: "st1"}}, code: contract.BelowUsed},
		{name: "backup too long", in: contract.ShrinkInput{Disk: disk, BackupTimeout: time.Minute}, prep: func(w *world) {
			w.hook = func(name string, _ int, after bool) error {
				if name == "WaitForBackups" && !after {
					return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, nil)
				}
				return nil
			}
		}, code: contract.BackupRunning},
		{name: "not the node's", in: shrinkIn, prep: func(w *world) {
			w.refuse["PrepareMove"] = contract.Refuse(contract.VolumeForeign, "other data").WithNext("use a blank volume")
		}, code: contract.VolumeForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := made(t)
			if tt.prep != nil {
				tt.prep(w)
			}
			r := w.run(contract.ShrinkWorkflow, tt.in)
			require.Equal(t, contract.Refused, r.Outcome)
			require.Equal(t, tt.code, r.Refusal.Code, r.Refusal.Error())
			require.NotEmpty(t, r.Refusal.Next)
			require.Len(t, w.vols, min(len(w.vols), 1), "a refusal leaves nothing")
		})
	}
	t.Run("cancelled while a backup runs", func(t *testing.T) {
		w := made(t)
		runs := make(chan struct{})
		defer close(runs)
		w.hook = func(name string, _ int, after bool) error {
			if name == "WaitForBackups" && !after {
				w.env.RegisterDelayedCallback(func() {
					require.Contains(t, w.asked().Waiting, "backups")
					w.env.SignalWorkflow(contract.SignalCancel, nil)
				}, 0)
				<-runs
			}
			return nil
		}
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Zero(t, w.count("SnapshotDisk"))
		require.Len(t, w.vols, 1)
		w.intact(nodeA)
	})
}

// Every call refused once, in turn: the disk is what it was, or what it should
// become, and nothing is left behind.
func TestShrinkRefusedAtEveryCall(t *testing.T) {
	for n := 1; n <= 15; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := made(t)
			w.hook = func(name string, i int, after bool) error {
				if i == n && !after {
					return contract.Refuse(contract.EC2Refused, "call %d (%s) refused", n, name)
				}
				return nil
			}
			r, err := w.try(contract.ShrinkWorkflow, shrinkIn)
			committed := n > 11
			if !committed {
				require.NoError(t, err)
				require.Equal(t, contract.Refused, r.Outcome)
				w.intact(nodeA)
				require.Len(t, w.vols, 1, "calls: %v", w.calls)
				return
			}
			// Past the commit a refusal leaves work: the next shrink tidies up.
			w.hook = nil
			w.use(2 * contract.GiB)
			w.newEnv()
			r = w.run(contract.ShrinkWorkflow, shrinkIn)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			w.intact(nodeA)
			w.nodes.With(disk, func(d *stubnode.Disk) { require.EqualValues(t, 3, d.Generation) })
		})
	}
}

// Every call fails once after its effect, in turn: the retry must find it done.
func TestShrinkSurvivesLostAnswers(t *testing.T) {
	for n := 1; n <= 15; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := made(t)
			failed := false
			w.hook = func(_ string, i int, after bool) error {
				if i == n && after && !failed {
					failed = true
					return errors.New("the answer was lost")
				}
				return nil
			}
			r := w.run(contract.ShrinkWorkflow, shrinkIn)
			require.True(t, failed)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Len(t, w.deleted, 1, "the old volume, by Retire")
			w.intact(nodeA)
		})
	}
}

// A cancel during every call: before the commit everything is put back, after
// it the operation ends as it should.
func TestShrinkCancelledAtEveryCall(t *testing.T) {
	for _, how := range []string{"signal", "temporal"} {
		for n := 1; n <= 15; n++ {
			t.Run(fmt.Sprint(how, n), func(t *testing.T) {
				w := made(t)
				w.hook = func(_ string, i int, after bool) error {
					if i == n && !after {
						if how == "signal" {
							w.env.SignalWorkflow(contract.SignalCancel, nil)
						} else {
							w.env.CancelWorkflow()
						}
						time.Sleep(10 * time.Millisecond)
					}
					return nil
				}
				r := w.run(contract.ShrinkWorkflow, shrinkIn)
				w.intact(nodeA)
				if r.Outcome == contract.Cancelled {
					require.Less(t, n, 12)
					require.Len(t, w.vols, 1, "calls: %v", w.calls)
					return
				}
				require.Equal(t, contract.Done, r.Outcome)
				require.Greater(t, n, 10)
			})
		}
	}
}

func TestShrinkCommitOutcomeUnknown(t *testing.T) {
	// The node dies in the commit, after its effect, and the operation is
	// cancelled while it is away: only the node can say, and it says committed.
	w := made(t)
	w.hook = func(name string, _ int, after bool) error {
		if name == "CommitMove" && after {
			w.mu.Lock()
			w.dead[nodeA] = true
			w.mu.Unlock()
			w.nodes.Off(nodeA)
			w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalCancel, nil) }, time.Minute)
			w.env.RegisterDelayedCallback(func() {
				w.mu.Lock()
				w.dead[nodeA] = false
				w.mu.Unlock()
			}, 10*time.Minute)
			return errors.New("power cut")
		}
		return nil
	}
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome, "calls: %v", w.calls)
	require.EqualValues(t, 2, r.Generation)
	w.intact(nodeA)
}

func TestShrinkNodeAway(t *testing.T) {
	away := func(t *testing.T, back time.Duration) (*world, contract.Result, error) {
		w := made(t)
		w.hook = func(name string, _ int, after bool) error {
			if name == "EvacuateDisk" && !after && w.count("EvacuateDisk") == 1 {
				w.mu.Lock()
				w.dead[nodeA] = true
				w.mu.Unlock()
				w.nodes.Off(nodeA)
				w.env.RegisterDelayedCallback(func() {
					w.mu.Lock()
					w.dead[nodeA] = false
					w.mu.Unlock()
				}, back)
				return errors.New("power cut")
			}
			return nil
		}
		r, err := w.try(contract.ShrinkWorkflow, contract.ShrinkInput{Disk: disk, Settings: contract.Settings{NodePatience: 2 * time.Hour}})
		return w, r, err
	}
	t.Run("comes back", func(t *testing.T) {
		w, r, err := away(t, time.Hour)
		require.NoError(t, err)
		require.Equal(t, contract.Done, r.Outcome)
		require.Positive(t, w.count("AssembleDisk"))
		w.intact(nodeA)
	})
	t.Run("stays away", func(t *testing.T) {
		w, _, err := away(t, 5*time.Hour)
		require.ErrorContains(t, err, "no agent has answered")
		require.Len(t, w.vols, 2, "nothing is deleted while the node cannot say")
		// The next one takes the move up.
		w.dead[nodeA], w.hook = false, nil
		w.newEnv()
		w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeA})
		w.newEnv()
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		require.Zero(t, w.count("CreateVolume"), "the move was taken up")
		w.intact(nodeA)
	})
}

func TestShrinkPauseAndThrottle(t *testing.T) {
	w := made(t)
	release := w.nodes.Hold()
	w.env.RegisterDelayedCallback(func() {
		w.env.SignalWorkflow(contract.SignalThrottle, contract.Throttle{MiBs: 50})
	}, time.Second)
	w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalPause, nil) }, 2*time.Second)
	var paused contract.Progress
	w.hook = func(name string, _ int, after bool) error {
		var in contract.ThrottleMoveInput
		if name == "ThrottleMove" && after {
			w.nodes.With(disk, func(d *stubnode.Disk) { in = d.Throttle })
			if in.Paused {
				release() // the copy ends while paused: the commit must wait
				w.env.RegisterDelayedCallback(func() {
					v, err := w.env.QueryWorkflow(contract.QueryProgress)
					require.NoError(t, err)
					require.NoError(t, v.Get(&paused))
					w.env.SignalWorkflow(contract.SignalResume, nil)
				}, time.Hour)
			}
		}
		return nil
	}
	began := w.env.Now()
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome)
	require.True(t, paused.Paused)
	require.Equal(t, contract.PhaseVerify, paused.Phase)
	require.Contains(t, paused.Waiting, "resume")
	require.GreaterOrEqual(t, w.env.Now().Sub(began), time.Hour)
	w.nodes.With(disk, func(d *stubnode.Disk) { require.EqualValues(t, 50, d.Throttle.MiBs) })
	w.intact(nodeA)
}

func TestShrinkPressure(t *testing.T) {
	press := func(gen uint64, gib int64) contract.Pressure {
		return contract.Pressure{Node: nodeA, Generation: gen, BackingBytes: gib * contract.GiB}
	}
	t.Run("old backing", func(t *testing.T) {
		w := made(t)
		w.at("EvacuateDisk", contract.SignalPressure, press(1, 20))
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		require.Equal(t, 1, w.count("ModifyVolume"))
		require.EqualValues(t, 25, w.deleted["vol-00000001"].SizeGiB)
		w.intact(nodeA)
	})
	t.Run("old backing, EBS refuses", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "four a day")
		w.at("EvacuateDisk", contract.SignalPressure, press(1, 20))
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		require.Equal(t, 1, w.count("AppendVolume"))
		require.Len(t, r.Retired, 2, "the appended volume goes with the old backing")
		w.intact(nodeA)
	})
	t.Run("new backing", func(t *testing.T) {
		w := made(t)
		w.at("VerifyMove", contract.SignalPressure, press(2, 6))
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		require.EqualValues(t, 8, r.AfterGiB)
		w.intact(nodeA)
	})
	t.Run("new backing, EBS refuses", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "four a day")
		release := w.nodes.Hold()
		defer release()
		w.at("EvacuateDisk", contract.SignalPressure, press(2, 6))
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.MoveFailed, r.Refusal.Code)
		w.intact(nodeA)
		require.Len(t, w.vols, 1)
	})
	t.Run("at the very end", func(t *testing.T) {
		w := made(t)
		w.at("DetachVolume", contract.SignalPressure, press(2, 6))
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		require.Equal(t, 1, w.count("ModifyVolume"))
		w.intact(nodeA)
	})
}

func TestShrinkRehome(t *testing.T) {
	t.Run("alive", func(t *testing.T) {
		w := made(t)
		release := w.nodes.Hold()
		w.at("EvacuateDisk", contract.SignalRehome, contract.RehomeInput{Node: nodeB})
		at := w.hook
		w.hook = func(name string, n int, after bool) error {
			if name == "AssembleDisk" {
				release()
			}
			return at(name, n, after)
		}
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeB, r.Node)
		w.intact(nodeB)
	})
	t.Run("dead", func(t *testing.T) {
		w := made(t)
		w.hook = func(name string, _ int, after bool) error {
			if name == "EvacuateDisk" && !after && w.count(name) == 1 {
				w.mu.Lock()
				w.dead[nodeA] = true
				w.instances[nodeA].State = "terminated"
				w.mu.Unlock()
				w.nodes.Off(nodeA)
				w.env.RegisterDelayedCallback(func() {
					w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeB, Dead: true})
				}, time.Hour)
				return errors.New("power cut")
			}
			return nil
		}
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeB)
	})
	t.Run("dead before the attachment", func(t *testing.T) {
		w := made(t)
		w.hook = func(name string, _ int, after bool) error {
			if name != "AttachVolume" || after || w.count(name) > 1 {
				return nil
			}
			w.mu.Lock()
			w.dead[nodeA] = true
			w.instances[nodeA].State = "stopped"
			w.mu.Unlock()
			w.nodes.Off(nodeA)
			w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeB, Dead: true})
			return contract.Refuse(contract.NodeUnknown, "instance %s is stopped", nodeA)
		}
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeB)
	})
	t.Run("refused", func(t *testing.T) {
		w := made(t)
		w.at("VerifyMove", contract.SignalRehome, contract.RehomeInput{Node: nodeC})
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeA)
	})
}

func TestShrinkRetiresAfterGrace(t *testing.T) {
	w := made(t)
	began := w.env.Now()
	w.run(contract.ShrinkWorkflow, shrinkIn)
	require.GreaterOrEqual(t, w.env.Now().Sub(began), contract.DefaultGrace)
	require.Contains(t, w.deleted, "vol-00000001", "by the child workflow")
	w.newEnv()
	r := w.run(contract.RetireWorkflow, contract.RetireInput{Disk: disk, Volume: "vol-00000002", Generation: 2})
	require.Equal(t, contract.Refused, r.Outcome, "an active volume is never deleted")
	w.intact(nodeA)
}

// A volume that comes off its instance only after its grace is deleted then.
func TestRetireWaitsUntilTheVolumeIsOff(t *testing.T) {
	w := made(t)
	l := w.left(1, contract.RoleRetired, 0)
	w.vols[l.Volume].Node = nodeB
	w.env.RegisterDelayedCallback(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.vols[l.Volume].Node = ""
	}, 30*time.Hour)
	r := w.run(contract.RetireWorkflow, contract.RetireInput{Disk: disk, Volume: l.Volume, Grace: time.Hour})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Contains(t, w.deleted, l.Volume)

	l = w.left(2, contract.RoleRetired, 0)
	w.vols[l.Volume].Node = nodeB
	w.newEnv()
	r = w.run(contract.RetireWorkflow, contract.RetireInput{Disk: disk, Volume: l.Volume, Grace: time.Hour})
	require.Equal(t, contract.DetachStuck, r.Refusal.Code, "it is not waited for without end")
	require.NotNil(t, w.vols[l.Volume])
}

// A node that was back before anybody missed it has not assembled the disk yet.
func TestShrinkNodeRebootsQuickly(t *testing.T) {
	for _, at := range []string{"TrimDisk", "PrepareMove", "EvacuateDisk", "VerifyMove", "CommitMove", "RetireBacking"} {
		t.Run(at, func(t *testing.T) {
			w := made(t)
			w.hook = func(name string, _ int, after bool) error {
				if name == at && !after && w.count(at) == 1 {
					w.nodes.Off(nodeA)
					return errors.New("power cut")
				}
				return nil
			}
			r := w.run(contract.ShrinkWorkflow, shrinkIn)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Positive(t, w.count("AssembleDisk"))
			w.intact(nodeA)
		})
	}
}
