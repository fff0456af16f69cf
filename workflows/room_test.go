package workflows_test

import (
	"cmp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
)

// A pool that fills while a step waits for just that: room is made beside it.
func TestRoomIsMadeBesideEveryStepThatWrites(t *testing.T) {
	for _, tt := range []struct {
		step, workflow string
		in             any
		prep           func(*world)
		ends           contract.Outcome // Done
	}{
		{step: "TrimDisk", workflow: contract.ShrinkWorkflow, in: shrinkIn},
		{step: "AttachVolume", workflow: contract.ShrinkWorkflow, in: shrinkIn},
		{step: "EvacuateDisk", workflow: contract.ShrinkWorkflow, in: shrinkIn},
		{step: "CommitMove", workflow: contract.ShrinkWorkflow, in: shrinkIn},
		{step: "AbortMove", workflow: contract.ShrinkWorkflow, in: shrinkIn, prep: func(w *world) {
			w.refuse["VerifyMove"] = contract.Refuse(contract.MoveFailed, "it differs").WithNext("report it")
		}, ends: contract.Refused},
		{step: "DisassembleDisk", workflow: contract.RehomeWorkflow, in: contract.RehomeInput{Disk: disk, Node: nodeB}},
		{step: "DisassembleDisk", workflow: contract.DeleteDiskWorkflow, in: contract.DeleteDiskInput{Disk: disk}},
		{step: "ExpandDisk", workflow: contract.ExpandWorkflow, in: contract.ExpandInput{Disk: disk, SizeBytes: 200 * contract.GiB}},
	} {
		t.Run(tt.workflow+" "+tt.step, func(t *testing.T) {
			w := made(t)
			if tt.prep != nil {
				tt.prep(w)
			}
			roomy := make(chan struct{})
			var once sync.Once
			w.hook = func(name string, _ int, after bool) error {
				switch {
				case name == "GrowBacking" && after:
					once.Do(func() { close(roomy) })
				case name == tt.step && !after && w.count(name) == 1:
					w.env.RegisterDelayedCallback(func() {
						w.env.SignalWorkflow(contract.SignalPressure, contract.Pressure{
							Node: nodeA, Generation: 1, BackingBytes: 20 * contract.GiB, Settings: contract.Settings{MinGrowGiB: 7, MinGrowPercent: 1},
						})
					}, 0)
					<-roomy
				}
				return nil
			}
			r := w.run(tt.workflow, tt.in)
			require.Equal(t, cmp.Or(tt.ends, contract.Done), r.Outcome, "%+v", r.Refusal)
			require.Equal(t, 1, w.count("ModifyVolume"))
			require.EqualValues(t, 27, max(w.size("vol-00000001"), w.deleted["vol-00000001"].SizeGiB), "the signal's own settings hold")
		})
	}
}

// A node comes back with a full pool: its mount waits for the growth, so the growth
// does not wait for the assembly.
func TestRoomIsMadeBesideAnAssembly(t *testing.T) {
	w := made(t)
	roomy := make(chan struct{})
	var once sync.Once
	w.hook = func(name string, _ int, after bool) error {
		switch {
		case name == "EvacuateDisk" && !after && w.count(name) == 1:
			w.gone(nodeA, true)
			w.env.RegisterDelayedCallback(func() { w.gone(nodeA, false) }, 3*time.Minute)
			return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
		case name == "AssembleDisk" && after: // but for its mount
			if w.count(name) == 1 {
				w.env.RegisterDelayedCallback(func() {
					w.env.SignalWorkflow(contract.SignalPressure, contract.Pressure{Node: nodeA, Generation: 1, BackingBytes: 20 * contract.GiB})
				}, 0)
			}
			<-roomy
		case name == "GrowBacking" && after:
			once.Do(func() { close(roomy) })
		}
		return nil
	}
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Equal(t, 1, w.count("ModifyVolume"))
	w.intact(nodeA)
}
